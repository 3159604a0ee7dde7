package driver

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/mount"
	"github.com/containerd/containerd/snapshots"
	"github.com/containerd/containerd/snapshots/proxy"
)

// As many as containerd's own test has for ordinary layers: 128LayersMount.
const manyLayers = 128

// Layers over a lazy image, mounted by containerd's own code: what is written on top and what is at the bottom is seen.
func TestLazyManyLayers(t *testing.T) {
	n := readNode(t)
	ctx := context.Background()
	root := filepath.Join(t.TempDir(), "layers")
	command, socket, err := start(root, []string{"--daemon-socket", n.Socket}, os.Getenv("IMGFS_SNAPSHOTTER"))
	if err != nil {
		t.Fatal(err)
	}
	defer command.Wait()
	defer command.Process.Signal(syscall.SIGTERM)
	conn, err := dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	sn := proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(conn), "imgfs")
	for number := range n.Layers {
		if err := n.layer(number+1).call(ctx, sn); err != nil {
			t.Fatal(err)
		}
	}
	parent, err := n.key(ctx, sn, len(n.Layers))
	if err != nil {
		t.Fatal(err)
	}
	for number := 0; number < manyLayers; number++ {
		mounts, err := sn.Prepare(ctx, "a", parent)
		if err != nil {
			t.Fatal(number, err)
		}
		write := func(dir string) error { return os.WriteFile(filepath.Join(dir, fmt.Sprint("f", number)), nil, 0644) }
		if err := mount.WithTempMount(ctx, mounts, write); err != nil {
			t.Fatal(number, err)
		}
		parent = fmt.Sprint("layer-", number)
		if err := sn.Commit(ctx, parent, "a"); err != nil {
			t.Fatal(number, err)
		}
	}
	for key, create := range map[string]func(context.Context, string, string, ...snapshots.Opt) ([]mount.Mount, error){"c": sn.Prepare, "v": sn.View} {
		mounts, err := create(ctx, key, parent)
		if err != nil {
			t.Fatal(key, err)
		}
		if content := n.read(t, mounts); content != n.Content {
			t.Fatalf("%s has %q", key, content)
		}
		count := func(dir string) error {
			if names, err := filepath.Glob(filepath.Join(dir, "f*")); err != nil || len(names) != manyLayers {
				return fmt.Errorf("%d files, %v", len(names), err)
			}
			return nil
		}
		if err := mount.WithTempMount(ctx, mounts, count); err != nil {
			t.Fatal(key, err)
		}
	}
	removeAll(t, sn, "at the end")
	cleanUp(t, sn, "at the end")
	if left := entries(t, filepath.Join(root, "snapshots")); len(left) > 0 {
		t.Fatalf("%q is left", left)
	}
}
