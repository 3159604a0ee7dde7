package driver

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/snapshots"
	"github.com/containerd/containerd/snapshots/proxy"
)

// usage says what a process has: anonymous memory in KiB, descriptors, threads.
func usage(t *testing.T, pid int) (memory, descriptors, threads int) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(text), "\n") {
		name, value, _ := strings.Cut(line, ":")
		number, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
		switch name {
		case "RssAnon":
			memory = number
		case "Threads":
			threads = number
		}
	}
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return memory, len(entries), threads
}

// comeAndGo makes a layer, a container and a view over it, looks at all of them, and takes them away.
func comeAndGo(ctx context.Context, sn snapshots.Snapshotter, number int) error {
	name := func(kind string) string { return fmt.Sprintf("%s-%d", kind, number) }
	labels := snapshots.WithLabels(map[string]string{"containerd.io/snapshot/number": name("label")})
	if _, err := sn.Prepare(ctx, name("layer"), "", labels); err != nil {
		return err
	}
	if err := sn.Commit(ctx, name("base"), name("layer"), labels); err != nil {
		return err
	}
	if _, err := sn.Prepare(ctx, name("container"), name("base"), labels); err != nil {
		return err
	}
	if _, err := sn.View(ctx, name("view"), name("base")); err != nil {
		return err
	}
	for _, key := range []string{name("container"), name("view")} {
		if _, err := sn.Mounts(ctx, key); err != nil {
			return err
		}
		if _, err := sn.Usage(ctx, key); err != nil {
			return err
		}
	}
	if _, err := sn.Stat(ctx, name("nobody")); err == nil {
		return fmt.Errorf("%s is there", name("nobody"))
	}
	if err := sn.Walk(ctx, func(context.Context, snapshots.Info) error { return nil }, `labels."containerd.io/snapshot/number"~=label`); err != nil {
		return err
	}
	for _, key := range []string{name("view"), name("container"), name("base")} {
		if err := sn.Remove(ctx, key); err != nil {
			return err
		}
	}
	if number%20 == 0 {
		return sn.(snapshots.Cleaner).Cleanup(ctx)
	}
	return nil
}

// What comes and goes, IMGFS_ROUNDS times, leaves no memory and no descriptors.
func TestEndurance(t *testing.T) {
	rounds, err := strconv.Atoi(os.Getenv("IMGFS_ROUNDS"))
	if err != nil {
		rounds = 100
	}
	command, socket, err := start(filepath.Join(t.TempDir(), "root"), noDaemon, os.Getenv("IMGFS_SNAPSHOTTER"))
	if err != nil {
		t.Fatal(err)
	}
	defer command.Process.Kill()
	ctx := context.Background()
	var memory, descriptors, threads int
	for i := 0; i < rounds; i++ {
		if i%50 == 0 && i > 0 && memory == 0 && i >= min(200, rounds/2) {
			memory, descriptors, threads = usage(t, command.Process.Pid)
		}
		conn, err := dial(socket)
		if err != nil {
			t.Fatal(err)
		}
		err = comeAndGo(ctx, proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(conn), "imgfs"), i)
		conn.Close()
		if err != nil {
			t.Fatal(i, err)
		}
	}
	memoryNow, descriptorsNow, threadsNow := usage(t, command.Process.Pid)
	t.Logf("%d rounds: %d to %d KiB, %d to %d descriptors, %d to %d threads", rounds, memory, memoryNow, descriptors, descriptorsNow, threads, threadsNow)
	if memory == 0 || memoryNow > memory+4096+rounds*300/1024 || descriptorsNow > descriptors+4 || threadsNow > threads+4 {
		t.Fatal("it has grown")
	}
}

func min(left, right int) int {
	if left < right {
		return left
	}
	return right
}
