package driver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"strings"
	"testing"

	"github.com/containerd/containerd/errdefs"
	"github.com/containerd/containerd/filters"
	"github.com/containerd/containerd/snapshots"
	"github.com/containerd/containerd/snapshots/overlay"
	"github.com/sirupsen/logrus"
)

func openTest(t *testing.T) snapshots.Snapshotter {
	root := filepath.Join(t.TempDir(), "root")
	if err := os.Mkdir(root, 0700); err != nil {
		t.Fatal(err)
	}
	sn, finish, err := open(context.Background(), root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := finish(); err != nil {
			t.Errorf("the program ended with %v", err)
		}
	})
	return sn
}

func openOverlay(t *testing.T) snapshots.Snapshotter {
	sn, err := overlay.NewSnapshotter(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return sn
}

// What errors mean to containerd.
var classes = []error{errdefs.ErrNotFound, errdefs.ErrAlreadyExists, errdefs.ErrInvalidArgument, errdefs.ErrFailedPrecondition}

func class(err error) error {
	for _, one := range classes {
		if errors.Is(err, one) {
			return one
		}
	}
	return err
}

// operation does the same random thing to a snapshotter whenever the source of randomness is the same, and says what came of it.
func operation(ctx context.Context, random *rand.Rand, sn snapshots.Snapshotter, root string) string {
	key := func() string { return fmt.Sprintf("k/1/key %d", random.Intn(9)) }
	parent := func() string {
		if random.Intn(3) == 0 {
			return ""
		}
		return key()
	}
	labels := map[string]string{}
	for i := random.Intn(3); i > 0; i-- {
		labels[fmt.Sprintf("containerd.io/snapshot/l%d", random.Intn(3))] = []string{"", "a", "b c"}[random.Intn(3)]
	}
	opt := snapshots.WithLabels(labels)
	what := random.Intn(9)
	switch what {
	case 0, 1:
		mounts, err := sn.Prepare(ctx, key(), parent(), opt)
		return fmt.Sprint("prepare ", shape(mounts), class(err))
	case 2:
		mounts, err := sn.View(ctx, key(), parent(), opt)
		return fmt.Sprint("view ", shape(mounts), class(err))
	case 3, 4:
		name, from := key(), key()
		return fmt.Sprint("commit ", class(sn.Commit(ctx, name, from, opt)))
	case 5:
		return fmt.Sprint("remove ", class(sn.Remove(ctx, key())))
	case 6:
		mounts, err := sn.Mounts(ctx, key())
		return fmt.Sprint("mounts ", shape(mounts), class(err))
	case 7:
		paths := [][]string{nil, {"labels"}, {"labels.containerd.io/snapshot/l1"}, {"parent"}, {"labels.x", "kind"}}[random.Intn(5)]
		info, err := sn.Update(ctx, snapshots.Info{Name: key(), Labels: labels}, paths...)
		return fmt.Sprint("update ", describe(info), class(err))
	default:
		usage, err := sn.Usage(ctx, key())
		return fmt.Sprint("usage ", usage, class(err))
	}
}

// describe leaves out times.
func describe(info snapshots.Info) string {
	labels := []string{}
	for name, value := range info.Labels {
		labels = append(labels, name+"="+value)
	}
	sort.Strings(labels)
	return fmt.Sprint(info.Kind, " ", info.Name, " < ", info.Parent, labels)
}

// state is all that there is to be seen.
func state(ctx context.Context, t *testing.T, sn snapshots.Snapshotter) []string {
	lines := []string{}
	err := sn.Walk(ctx, func(ctx context.Context, info snapshots.Info) error {
		lines = append(lines, describe(info))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(lines)
	return lines
}

// Random calls mean the same to containerd's overlayfs snapshotter.
func TestSameAsOverlay(t *testing.T) {
	ctx := context.Background()
	for seed := int64(1); seed <= 4; seed++ {
		ours, theirs := openTest(t), openOverlay(t)
		left, right := rand.New(rand.NewSource(seed)), rand.New(rand.NewSource(seed))
		for i := 0; i < 300; i++ {
			got, want := operation(ctx, left, ours, ""), operation(ctx, right, theirs, "")
			if got != want {
				t.Fatalf("seed %d, call %d: %q and not %q", seed, i, got, want)
			}
		}
		if got, want := state(ctx, t, ours), state(ctx, t, theirs); !reflect.DeepEqual(got, want) {
			t.Fatalf("seed %d: %q and not %q", seed, got, want)
		}
		if err := ours.(snapshots.Cleaner).Cleanup(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

func adaptor(info snapshots.Info) filters.Adaptor {
	return filters.AdapterFunc(func(path []string) (string, bool) {
		switch path[0] {
		case "kind":
			return strings.ToLower(info.Kind.String()), true
		case "name":
			return info.Name, true
		case "parent":
			return info.Parent, true
		case "labels":
			value, ok := info.Labels[strings.Join(path[1:], ".")]
			return value, ok
		}
		return "", false
	})
}

// A filter put together from pieces that often, not always, make sense.
func randomFilter(random *rand.Rand) string {
	pick := func(words ...string) string { return words[random.Intn(len(words))] }
	selectors := []string{}
	for i := random.Intn(3); i >= 0; i-- {
		path := pick("name", "parent", "kind", "labels", "labels.a", "labels.\"a.b\"", "labels.a.b", "labels.\"x/y\"", "other",
			"\"name\"", "labels.\"\\u00e4\"", "name", "labels.a", "name", "parent", "n@me")
		value := pick("x", "key-1", "\"key 2\"", "sha256:ab", "committed", "active", "\"\"", "/key.*/", "|^k|", "\"^key-[0-3]$\"",
			"k+?", "\"\\x6bey-1\"", "\"\\153ey-1\"", "ä", "\"b\\tc\"", "(?i)KEY", "[", "(a)\\1", "\"open", "a=b", "a!b", ".", "a.b", "-")
		selectors = append(selectors, path+pick("", " ")+pick("==", "==", "!=", "!=", "~=", "~=", "~=", "~=", "", "=~")+pick("", " ")+value)
	}
	return pick("", "", "", " ") + strings.Join(selectors, pick(",", ",", ",", ",", ", ", ";")) + pick("", "", "", "", "", ",", " ")
}

func names(ctx context.Context, sn snapshots.Snapshotter, filter ...string) ([]string, error) {
	found := []string{}
	err := sn.Walk(ctx, func(ctx context.Context, info snapshots.Info) error {
		found = append(found, info.Name)
		return nil
	}, filter...)
	sort.Strings(found)
	return found, err
}

// containerd's own parser and matcher say what each filter finds.
func TestFilters(t *testing.T) {
	ctx, sn, random := context.Background(), openTest(t), rand.New(rand.NewSource(7))
	values := []string{"a", "b\tc", "sha256:ab", "ä", "key-1", "a.b"}
	for i := 0; i < 12; i++ {
		labels := map[string]string{"a": values[i%6], "ä": values[(i+1)%6]}
		if i%2 == 0 {
			labels["a.b"], labels["x/y"] = values[(i/2)%6], "x"
		}
		key := []string{"key-%d", "key %d", "ä%d"}[i%3]
		if _, err := sn.Prepare(ctx, fmt.Sprintf(key, i), "", snapshots.WithLabels(labels)); err != nil {
			t.Fatal(err)
		}
	}
	infos := []snapshots.Info{}
	sn.Commit(ctx, "key-1", "key-0", snapshots.WithLabels(map[string]string{"a": "key-1"}))
	if err := sn.Walk(ctx, func(ctx context.Context, info snapshots.Info) error { infos = append(infos, info); return nil }); err != nil {
		t.Fatal(err)
	}
	logrus.SetOutput(io.Discard) // the oracle complains of each bad expression
	refused, found := 0, 0
	for i := 0; i < 3000; i++ {
		set := []string{randomFilter(random)}
		if random.Intn(4) == 0 {
			set = append(set, randomFilter(random))
		}
		want := []string{}
		filter, wantError := filters.ParseAll(set...)
		for _, info := range infos {
			if wantError == nil && filter.Match(adaptor(info)) {
				want = append(want, info.Name)
			}
		}
		sort.Strings(want)
		got, err := names(ctx, sn, set...)
		if class(err) != class(wantError) && !(wantError != nil && errors.Is(err, errdefs.ErrInvalidArgument)) {
			t.Fatalf("%q: %v and not %v", set, err, wantError)
		}
		if wantError != nil {
			refused++
		} else if !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: %q and not %q", set, got, want)
		} else if len(got) > 0 {
			found++
		}
	}
	t.Logf("%d refused, %d found something", refused, found)
	if refused < 100 || found < 100 {
		t.Fatal("the filters are too much alike")
	}
}
