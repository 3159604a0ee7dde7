package driver

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/errdefs"
	"github.com/containerd/containerd/mount"
	"github.com/containerd/containerd/snapshots"
)

// shape says what is to be mounted without the directories, which have numbers that differ.
func shape(mounts []mount.Mount) string {
	text := ""
	for _, one := range mounts {
		text += one.Type
		for _, option := range one.Options {
			name, value, _ := strings.Cut(option, "=")
			text += fmt.Sprintf(" %s/%d", name, strings.Count(value, ":"))
		}
	}
	return text
}

// Thousands of calls are given up at any moment, after a microsecond or up to a quarter of a second, so that a slow build also
// acknowledges some; then all that was acknowledged is there, and nothing hangs.
func TestStorm(t *testing.T) {
	sn := openTest(t)
	var group sync.WaitGroup
	var lock sync.Mutex
	kept := map[string]bool{}
	for worker := 0; worker < 16; worker++ {
		group.Add(1)
		go func(worker int) {
			defer group.Done()
			random := rand.New(rand.NewSource(int64(worker)))
			for i := 0; i < 120; i++ {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(1<<random.Intn(19))*time.Microsecond)
				key := fmt.Sprintf("storm-%d-%d", worker, i)
				if _, err := sn.Prepare(ctx, key, ""); err == nil {
					lock.Lock()
					kept[key] = true
					lock.Unlock()
				}
				sn.Stat(ctx, key)
				names(ctx, sn)
				cancel()
			}
		}(worker)
	}
	group.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for key := range kept {
		if _, err := sn.Stat(ctx, key); err != nil {
			t.Fatalf("%s was acknowledged: %v", key, err)
		}
	}
	if _, err := sn.Prepare(ctx, "after", ""); err != nil {
		t.Fatal(err)
	}
	found, err := names(ctx, sn)
	if err != nil || len(found) <= len(kept) || len(kept) == 0 {
		t.Fatalf("%d of %d, %v", len(found), len(kept), err)
	}
	t.Logf("%d acknowledged, %d there", len(kept), len(found))
}

// Large requests, large replies, and texts that have to be escaped.
func TestBig(t *testing.T) {
	ctx, sn := context.Background(), openTest(t)
	labels := map[string]string{}
	for i := 0; i < 40; i++ {
		labels[fmt.Sprintf("containerd.io/snapshot/%d", i)] = strings.Repeat("ä", 1000)
	}
	for i := 0; i < 40; i++ {
		if _, err := sn.Prepare(ctx, fmt.Sprintf("big-%d", i), "", snapshots.WithLabels(labels)); err != nil {
			t.Fatal(err)
		}
	}
	count := 0
	err := sn.Walk(ctx, func(ctx context.Context, info snapshots.Info) error {
		count++
		if len(info.Labels) != 40 || info.Labels["containerd.io/snapshot/39"] != labels["containerd.io/snapshot/39"] {
			return errors.New("labels are missing")
		}
		return nil
	})
	if err != nil || count != 40 {
		t.Fatal(count, err)
	}
	labels["more"] = strings.Repeat("x", 20000)
	if _, err = sn.Prepare(ctx, "too-many", "", snapshots.WithLabels(labels)); !errdefs.IsInvalidArgument(err) {
		t.Fatal(err)
	}
	_, err = sn.Stat(ctx, "Schlüssel\n100% ☃")
	if !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "Schlüssel\n100% ☃") {
		t.Fatal(err)
	}
	labels["large"] = strings.Repeat("x", 17<<20)
	if _, err = sn.Prepare(ctx, "too-big", "", snapshots.WithLabels(labels)); err == nil || !strings.Contains(err.Error(), "16 MiB") {
		t.Fatal(err)
	}
	if _, err = sn.Stat(ctx, "big-0"); err != nil {
		t.Fatal(err)
	}
}
