package driver

import (
	"context"
	"fmt"
	"os"
	"sort"
	"strconv"
	"sync"
	"testing"
	"time"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/namespaces"
	"github.com/containerd/containerd/snapshots"
	"github.com/containerd/containerd/snapshots/proxy"
)

// How long calls took, in order.
type times []time.Duration

func (t times) at(part float64) float64 {
	return float64(t[int(part*float64(len(t)-1))]) / 1e3
}

// measure makes `rounds` calls of each kind in each of `clients` goroutines.
func measure(t *testing.T, sn snapshots.Snapshotter, clients, rounds int, prefix string) map[string]times {
	// Else containerd's garbage collector takes them away.
	root := snapshots.WithLabels(map[string]string{"containerd.io/gc.root": time.Now().UTC().Format(time.RFC3339)})
	var lock sync.Mutex
	var group sync.WaitGroup
	all := map[string]times{}
	failed := false
	for client := 0; client < clients; client++ {
		group.Add(1)
		go func(client int) {
			defer group.Done()
			ctx := namespaces.WithNamespace(context.Background(), "bench")
			own := map[string]times{}
			timed := func(name string, call func() error) {
				begin := time.Now()
				if err := call(); err != nil {
					lock.Lock()
					failed = true
					lock.Unlock()
					t.Errorf("%s: %v", name, err)
				}
				own[name] = append(own[name], time.Since(begin))
			}
			for i := 0; i < rounds; i++ {
				key := fmt.Sprintf("%s-%d-%d", prefix, client, i)
				timed("Prepare", func() error { _, err := sn.Prepare(ctx, key, "", root); return err })
				timed("Stat", func() error { _, err := sn.Stat(ctx, key); return err })
				timed("Commit", func() error { return sn.Commit(ctx, key+"-c", key, root) })
				timed("Remove", func() error { return sn.Remove(ctx, key+"-c") })
			}
			lock.Lock()
			defer lock.Unlock()
			for name, list := range own {
				all[name] = append(all[name], list...)
			}
		}(client)
	}
	group.Wait()
	if failed {
		t.FailNow()
	}
	for _, list := range all {
		sort.Slice(list, func(i, j int) bool { return list[i] < list[j] })
	}
	return all
}

// IMGFS_BENCH_SOCKET and _NAME say whom to ask, _CLIENTS and _ROUNDS how much; the lines are for tests/bench/snapshotter.
func TestBench(t *testing.T) {
	socket, name := os.Getenv("IMGFS_BENCH_SOCKET"), os.Getenv("IMGFS_BENCH_NAME")
	if socket == "" {
		t.Skip("IMGFS_BENCH_SOCKET names a socket")
	}
	clients, _ := strconv.Atoi(os.Getenv("IMGFS_BENCH_CLIENTS"))
	rounds, _ := strconv.Atoi(os.Getenv("IMGFS_BENCH_ROUNDS"))
	conn, err := dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	sn := proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(conn), name)
	for call, list := range measure(t, sn, clients, rounds, fmt.Sprint("b", time.Now().UnixNano())) {
		fmt.Printf("bench %s %.0f %.0f %d\n", call, list.at(0.5), list.at(0.99), len(list))
	}
	ctx := namespaces.WithNamespace(context.Background(), "bench")
	sn.(snapshots.Cleaner).Cleanup(ctx)
}
