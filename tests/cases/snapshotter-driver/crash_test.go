package driver

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/errdefs"
	"github.com/containerd/containerd/snapshots"
	"github.com/containerd/containerd/snapshots/proxy"
)

// A row of what should be there: its key to the rest.
type rows map[string]string

func (r rows) with(change func(rows)) rows {
	next := rows{}
	for key, value := range r {
		next[key] = value
	}
	change(next)
	return next
}

type step struct {
	name string
	call func(context.Context, snapshots.Snapshotter) error
	then func(rows)
}

func prepare(key, parent string) step {
	return step{"prepare " + key, func(ctx context.Context, sn snapshots.Snapshotter) error {
		_, err := sn.Prepare(ctx, key, parent, snapshots.WithLabels(map[string]string{"l": key}))
		return err
	}, func(r rows) { r[key] = fmt.Sprintf("Active %s < %s[l=%s]", key, parent, key) }}
}

func commit(name, key, parent string) step {
	return step{"commit " + key, func(ctx context.Context, sn snapshots.Snapshotter) error {
		return sn.Commit(ctx, name, key, snapshots.WithLabels(map[string]string{"n": name}))
	}, func(r rows) { delete(r, key); r[name] = fmt.Sprintf("Committed %s < %s[n=%s]", name, parent, name) }}
}

func remove(key string) step {
	return step{"remove " + key, func(ctx context.Context, sn snapshots.Snapshotter) error {
		return sn.Remove(ctx, key)
	}, func(r rows) { delete(r, key) }}
}

func plain(name string, call func(context.Context, snapshots.Snapshotter) error) step {
	return step{name, call, func(rows) {}}
}

var cleanup = plain("cleanup", func(ctx context.Context, sn snapshots.Snapshotter) error { return sn.(snapshots.Cleaner).Cleanup(ctx) })

// Every call, those that change something in each way they can.
var script = []step{
	prepare("a", ""), commit("one", "a", ""), prepare("b", "one"),
	{"view v", func(ctx context.Context, sn snapshots.Snapshotter) error {
		_, err := sn.View(ctx, "v", "one")
		return err
	},
		func(r rows) { r["v"] = "View v < one[]" }},
	plain("mounts b", func(ctx context.Context, sn snapshots.Snapshotter) error { _, err := sn.Mounts(ctx, "b"); return err }),
	commit("two", "b", "one"),
	{"update two", func(ctx context.Context, sn snapshots.Snapshotter) error {
		_, err := sn.Update(ctx, snapshots.Info{Name: "two", Labels: map[string]string{"u": "1"}})
		return err
	}, func(r rows) { r["two"] = "Committed two < one[u=1]" }},
	remove("v"), cleanup, prepare("c", "two"),
	plain("usage c", func(ctx context.Context, sn snapshots.Snapshotter) error { _, err := sn.Usage(ctx, "c"); return err }),
	plain("list", func(ctx context.Context, sn snapshots.Snapshotter) error { _, err := names(ctx, sn); return err }),
	plain("stat c", func(ctx context.Context, sn snapshots.Snapshotter) error { _, err := sn.Stat(ctx, "c"); return err }),
	remove("c"), cleanup, remove("two"), prepare("d", "one"),
}

func connect(t *testing.T, socket string) (snapshots.Snapshotter, func()) {
	conn, err := dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	return proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(conn), "imgfs"), func() { conn.Close() }
}

// scene is a script, and what has to be true of what its calls leave.
type scene struct {
	script  []step
	options func(root string) []string
	calls   int // about so many system calls the program makes for the script
	// look compares what is there with the rows that are, as Cleanup leaves it.
	look func(t *testing.T, sn snapshots.Snapshotter, root string, got rows, where string)
}

// run goes through the script until a call fails. What has to be there, and what may be there instead: the call that failed may have
// been done.
func (s scene) run(t *testing.T, socket string) (rows, rows, string) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	sn, closed := connect(t, socket)
	defer closed()
	have := rows{}
	for _, one := range s.script {
		next := have.with(one.then)
		if err := one.call(ctx, sn); err != nil {
			return have, next, fmt.Sprintf("%s (%v)", one.name, err)
		}
		have = next
	}
	return have, have, theEnd
}

const (
	theStart = "the start"
	theEnd   = "the end"
)

// A sample's steps through the system calls of the start.
const startStride = 400

// The number in the name of a lazy snapshot.
var lazyNumber = regexp.MustCompile("imgfs/([0-9]+)/")

func found(t *testing.T, sn snapshots.Snapshotter) rows {
	all := rows{}
	for _, line := range state(context.Background(), t, sn) {
		line = lazyNumber.ReplaceAllString(line, "imgfs/N/")
		all[strings.Fields(line)[1]] = line
	}
	return all
}

func cleanUp(t *testing.T, sn snapshots.Snapshotter, where string) {
	if err := sn.(snapshots.Cleaner).Cleanup(context.Background()); err != nil {
		t.Fatal(where, err)
	}
}

// lookAtDirectories is for snapshots that all have a directory.
func lookAtDirectories(t *testing.T, sn snapshots.Snapshotter, root string, got rows, where string) {
	entries, err := os.ReadDir(filepath.Join(root, "snapshots"))
	if err != nil || len(entries) != len(got) {
		t.Fatalf("%s: %d directories for %d snapshots, %v", where, len(entries), len(got), err)
	}
	for key, line := range got {
		if strings.HasPrefix(line, "Committed") {
			continue
		}
		if mounts, err := sn.Mounts(context.Background(), key); err != nil || len(mounts) != 1 {
			t.Fatal(where, key, mounts, err)
		}
	}
}

// removeAll takes children before their parents.
func removeAll(t *testing.T, sn snapshots.Snapshotter, where string) {
	ctx := context.Background()
	for {
		left, err := names(ctx, sn)
		if err != nil {
			t.Fatal(where, err)
		}
		if len(left) == 0 {
			return
		}
		removed := 0
		for _, name := range left {
			if err := sn.Remove(ctx, name); err == nil {
				removed++
			} else if !errdefs.IsFailedPrecondition(err) {
				t.Fatal(where, err)
			}
		}
		if removed == 0 {
			t.Fatalf("%s: none of %q can be removed", where, left)
		}
	}
}

// check starts the program again on what the killed one left.
func (s scene) check(t *testing.T, root string, have, maybe rows, where string) {
	command, socket, err := start(root, s.options(root), os.Getenv("IMGFS_SNAPSHOTTER"))
	if err != nil {
		t.Fatal(where, err)
	}
	sn, closed := connect(t, socket)
	defer closed()
	got := found(t, sn)
	if !reflect.DeepEqual(got, have) && !reflect.DeepEqual(got, maybe) {
		t.Fatalf("%s: %q, and neither %q nor %q", where, got, have, maybe)
	}
	cleanUp(t, sn, where)
	s.look(t, sn, root, got, where)
	removeAll(t, sn, where)
	cleanUp(t, sn, where)
	s.look(t, sn, root, rows{}, where+", then emptied")
	command.Process.Signal(syscall.SIGTERM)
	if err := command.Wait(); err != nil {
		t.Fatal(where, err)
	}
}

// attempt kills the program at one system call, and says in which step that was; theEnd: the script came to its end before.
func (s scene) attempt(t *testing.T, point int) string {
	directory, err := os.MkdirTemp("", "crash-")
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(directory, "root")
	command, socket, err := start(root, s.options(root), os.Getenv("IMGFS_KILL_AT"), strconv.Itoa(point), os.Getenv("IMGFS_SNAPSHOTTER"))
	have, maybe, in := rows{}, rows{}, theStart
	if err == nil {
		have, maybe, in = s.run(t, socket)
	}
	if command != nil {
		if in == theEnd {
			syscall.Kill(-command.Process.Pid, syscall.SIGTERM)
		}
		// A call that failed while the program went on has to be told from one that it died in.
		timer := time.AfterFunc(time.Minute, func() { syscall.Kill(-command.Process.Pid, syscall.SIGKILL) })
		if err := command.Wait(); err != nil {
			t.Fatalf("at call %d, in %s: %v", point, in, err)
		}
		timer.Stop()
	}
	where := fmt.Sprintf("killed at call %d, in %s", point, in)
	s.check(t, root, have, maybe, where)
	t.Log(where)
	os.RemoveAll(directory)
	return in
}

// kill has the program die at its system calls: at IMGFS_KILLS of those for the script and at some of the start, which makes the room
// set aside for metadata by thousands that are alike; at all if that is 0; or at those of a range ("400-799").
func (s scene) kill(t *testing.T) {
	if os.Getenv("IMGFS_KILL_AT") == "" {
		t.Skip("IMGFS_KILL_AT names tests/crash/kill-at")
	}
	first, last, step, count := 20, math.MaxInt32, 1, 0
	if ranged, _ := fmt.Sscanf(os.Getenv("IMGFS_KILLS"), "%d-%d", &first, &last); ranged != 2 {
		first = 20
		if kills, _ := strconv.Atoi(os.Getenv("IMGFS_KILLS")); kills > 0 {
			step = s.calls/kills + 1
		}
	}
	stride := step
	if step > 1 {
		stride = startStride
	}
	for point := first; point <= last; point += stride {
		in := s.attempt(t, point)
		if in == theEnd {
			break
		}
		count++
		if in != theStart && stride != step {
			// The script has begun somewhere behind the last one.
			point, stride = point-stride, step
		}
	}
	t.Logf("killed %d times", count)
	if count < 10 {
		t.Fatal("hardly ever killed")
	}
}

func TestCrash(t *testing.T) {
	scene{script: script, options: func(string) []string { return noDaemon }, calls: 500, look: lookAtDirectories}.kill(t)
}
