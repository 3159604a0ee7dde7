package driver

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/errdefs"
	"github.com/containerd/containerd/mount"
	"github.com/containerd/containerd/snapshots"
)

const refLabel = "containerd.io/snapshot.ref"

// node is a node daemon of the case's own, and an image that a server has for it: the file that IMGFS_CRASH_LAZY names.
type node struct {
	Imgfs, Socket string
	Trees         []string // where it shows images
	Attached      string   // its records of who holds them
	Reference     string
	Layers        []struct {
		Chain  string
		Labels map[string]string // as the manifest has them
	}
	File, Content string // what the image has in it
	Mapped        bool   // this machine shows lazy images with other owners
}

func readNode(t *testing.T) *node {
	name := os.Getenv("IMGFS_CRASH_LAZY")
	if name == "" {
		t.Skip("IMGFS_CRASH_LAZY names a file about a node daemon and an image")
	}
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{}
	if err := json.Unmarshal(data, n); err != nil {
		t.Fatal(err)
	}
	return n
}

// labels are what a client sends with the layer of this number, the first of which is 1.
func (n *node) labels(number int, more map[string]string) map[string]string {
	labels := map[string]string{
		refLabel:                               n.Layers[number-1].Chain,
		"containerd.io/snapshot/cri.image-ref": n.Reference,
	}
	for _, one := range []map[string]string{n.Layers[number-1].Labels, more} {
		for name, value := range one {
			labels[name] = value
		}
	}
	return labels
}

// name is that of a lazy snapshot as found() has it.
func (n *node) name(number int) string {
	if number == 0 {
		return ""
	}
	return "imgfs/N/" + n.Layers[number-1].Chain
}

// key looks up what the snapshot is really called, as containerd does.
func (n *node) key(ctx context.Context, sn snapshots.Snapshotter, number int) (string, error) {
	if number == 0 {
		return "", nil
	}
	list, err := names(ctx, sn, fmt.Sprintf("labels.%q==%s", refLabel, n.Layers[number-1].Chain))
	if err == nil && len(list) != 1 {
		err = fmt.Errorf("%d snapshots of layer %d", len(list), number)
	}
	return strings.Join(list, ""), err
}

func info(kind snapshots.Kind, name, parent string, labels map[string]string) string {
	return describe(snapshots.Info{Kind: kind, Name: name, Parent: parent, Labels: labels})
}

// layer is the Prepare of a layer by its chain, which has to say that it is there already.
func (n *node) layer(number int) step {
	return step{fmt.Sprint("layer ", number), func(ctx context.Context, sn snapshots.Snapshotter) error {
		parent, err := n.key(ctx, sn, number-1)
		if err != nil {
			return err
		}
		_, err = sn.Prepare(ctx, fmt.Sprint("extract-", number), parent, snapshots.WithLabels(n.labels(number, nil)))
		if err == nil {
			return fmt.Errorf("layer %d is not lazy", number)
		}
		if errdefs.IsAlreadyExists(err) {
			return nil
		}
		return err
	}, func(r rows) {
		r[n.name(number)] = info(snapshots.KindCommitted, n.name(number), n.name(number-1), n.labels(number, nil))
	}}
}

// over is an active snapshot or a view with a lazy parent.
func (n *node) over(kind snapshots.Kind, key string, number int, labels map[string]string) step {
	return step{fmt.Sprint(kind, " ", key), func(ctx context.Context, sn snapshots.Snapshotter) error {
		parent, err := n.key(ctx, sn, number)
		if err != nil {
			return err
		}
		create := sn.Prepare
		if kind == snapshots.KindView {
			create = sn.View
		}
		_, err = create(ctx, key, parent, snapshots.WithLabels(labels))
		return err
	}, func(r rows) { r[key] = info(kind, key, n.name(number), labels) }}
}

func (n *node) removeLayer(number int) step {
	return step{fmt.Sprint("remove layer ", number), func(ctx context.Context, sn snapshots.Snapshotter) error {
		key, err := n.key(ctx, sn, number)
		if err != nil {
			return err
		}
		return sn.Remove(ctx, key)
	}, func(r rows) { delete(r, n.name(number)) }}
}

// whole is a layer with annotations that this version does not know: an ordinary snapshot, and a note of why.
func (n *node) whole(key string) step {
	labels := n.labels(1, map[string]string{refLabel: "sha256:" + strings.Repeat("0", 64), "containerd.io/snapshot/imgfs.version": "9"})
	return n.over(snapshots.KindActive, key, 0, labels)
}

func mountsOf(key string) step {
	return plain("mounts "+key, func(ctx context.Context, sn snapshots.Snapshotter) error { _, err := sn.Mounts(ctx, key); return err })
}

// Every call that has to do with a lazy snapshot, and what is ordinary around it.
func (n *node) script() []step {
	top := len(n.Layers)
	labels := map[string]string{refLabel: n.Layers[top-1].Chain, "u": "1"}
	steps := []step{}
	for number := 1; number <= top; number++ {
		steps = append(steps, n.layer(number))
	}
	mapped := []step{}
	if n.Mapped {
		labels := map[string]string{"containerd.io/snapshot/uidmapping": "0:100000:65536", "containerd.io/snapshot/gidmapping": "0:200000:65536"}
		mapped = []step{n.over(snapshots.KindActive, "m", top, labels), mountsOf("m"), remove("m"), cleanup}
	}
	steps = append(steps,
		plain("layer again", n.layer(top).call),
		n.over(snapshots.KindActive, "a", top, nil), mountsOf("a"),
		n.over(snapshots.KindView, "v", top, nil), mountsOf("v"),
		step{"commit a", func(ctx context.Context, sn snapshots.Snapshotter) error { return sn.Commit(ctx, "c", "a") },
			func(r rows) { delete(r, "a"); r["c"] = info(snapshots.KindCommitted, "c", n.name(top), nil) }},
		step{"prepare b", func(ctx context.Context, sn snapshots.Snapshotter) error {
			_, err := sn.Prepare(ctx, "b", "c")
			return err
		},
			func(r rows) { r["b"] = info(snapshots.KindActive, "b", "c", nil) }},
		mountsOf("b"),
	)
	return append(append(steps, mapped...),
		step{"update", func(ctx context.Context, sn snapshots.Snapshotter) error {
			key, err := n.key(ctx, sn, top)
			if err == nil {
				_, err = sn.Update(ctx, snapshots.Info{Name: key, Labels: labels})
			}
			return err
		}, func(r rows) { r[n.name(top)] = info(snapshots.KindCommitted, n.name(top), n.name(top-1), labels) }},
		n.whole("w"), remove("w"),
		plain("usage", func(ctx context.Context, sn snapshots.Snapshotter) error {
			key, err := n.key(ctx, sn, top)
			if err == nil {
				_, err = sn.Usage(ctx, key)
			}
			return err
		}),
		remove("v"), cleanup, remove("b"), remove("c"), n.removeLayer(top), cleanup,
		n.layer(top), n.removeLayer(top), n.removeLayer(top-1), n.layer(top-1), cleanup,
	)
}

// held says for which snapshots the daemon holds an image, by their numbers.
func (n *node) held(t *testing.T) []string {
	output, err := exec.Command(n.Imgfs, "list", "--socket", n.Socket, "--json").Output()
	if err != nil {
		t.Fatal(err)
	}
	list := []struct{ Owner string }{}
	if err := json.Unmarshal(output, &list); err != nil {
		t.Fatal(err)
	}
	ids := []string{}
	for _, one := range list {
		ids = append(ids, one.Owner[strings.LastIndex(one.Owner, ":")+1:])
	}
	sort.Strings(ids)
	return ids
}

func entries(t *testing.T, directories ...string) []string {
	all := []string{}
	for _, directory := range directories {
		list, err := os.ReadDir(directory)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for _, entry := range list {
			all = append(all, entry.Name())
		}
	}
	sort.Strings(all)
	return all
}

// differs compares the node with the rows: "" when the daemon holds exactly what they need and nothing else is there.
func (n *node) differs(t *testing.T, sn snapshots.Snapshotter, root string, got rows) string {
	ids, chains := []string{}, []string{}
	list, err := names(context.Background(), sn)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range list {
		if number := lazyNumber.FindStringSubmatch(name); number != nil {
			ids = append(ids, number[1])
			chains = append(chains, name[strings.LastIndex(name, ":")+1:])
		}
	}
	sort.Strings(ids)
	sort.Strings(chains)
	if held := n.held(t); !reflect.DeepEqual(held, ids) {
		return fmt.Sprintf("held for %q and not for %q", held, ids)
	}
	if shown := entries(t, n.Trees...); !reflect.DeepEqual(shown, chains) {
		return fmt.Sprintf("shown is %q and not %q", shown, chains)
	}
	if records := entries(t, n.Attached); len(records) != len(ids) {
		return fmt.Sprintf("%q are the records of %q", records, ids)
	}
	if directories := entries(t, filepath.Join(root, "snapshots")); len(directories) != len(got)-len(ids) {
		return fmt.Sprintf("directories %q for %d snapshots, %d of them lazy", directories, len(got), len(ids))
	}
	return ""
}

// read mounts a snapshot and reads the image's file.
func (n *node) read(t *testing.T, mounts []mount.Mount) string {
	point := t.TempDir()
	if err := mount.All(mounts, point); err != nil {
		return err.Error()
	}
	defer mount.UnmountAll(point, 0)
	data, err := os.ReadFile(filepath.Join(point, n.File))
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// What is in the program's directory besides the database.
var known = map[string]bool{"snapshots": true, "lock": true, "whole.json": true, "metrics": true, "idmap": true}

func (n *node) look(t *testing.T, sn snapshots.Snapshotter, root string, got rows, where string) {
	// What the daemon was still doing for the one that was killed comes to its end without anybody; the next Cleanup takes it back.
	for until := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		difference := n.differs(t, sn, root, got)
		if difference == "" {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("%s: %s", where, difference)
		}
		cleanUp(t, sn, where)
	}
	for key, line := range got {
		if strings.HasPrefix(line, "Committed") {
			continue
		}
		mounts, err := sn.Mounts(context.Background(), key)
		if err != nil || len(mounts) != 1 {
			t.Fatal(where, key, mounts, err)
		}
		if content := n.read(t, mounts); key != "w" && content != n.Content {
			t.Fatalf("%s: %s has %q", where, key, content)
		}
	}
	for _, name := range entries(t, root) {
		if !strings.HasPrefix(name, "metadata.db") && !known[name] {
			t.Fatalf("%s: %s is left", where, name)
		}
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if _, mapped := got["m"]; err != nil || (!mapped && (strings.Contains(string(table), " "+root) || len(entries(t, filepath.Join(root, "idmap"))) > 0)) {
		t.Fatalf("%s: a mount is left, %v", where, err)
	}
}

// The same with lazy snapshots: also the daemon has nothing that Cleanup does not take back, and what there is shows the image.
func TestLazyCrash(t *testing.T) {
	n := readNode(t)
	options := func(root string) []string {
		return []string{"--daemon-socket", n.Socket, "--metrics", filepath.Join(root, "metrics")}
	}
	scene{script: n.script(), options: options, calls: 1200, look: n.look}.kill(t)
}
