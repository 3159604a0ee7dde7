// Package driver runs containerd's own tests of a snapshotter against a program that serves one on a socket, through the client that
// containerd itself uses. IMGFS_SNAPSHOTTER names the program; each test gets a process, a root and a socket of its own.
package driver

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
	"unsafe"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/snapshots"
	"github.com/containerd/containerd/snapshots/proxy"
	"github.com/containerd/containerd/snapshots/testsuite"
	"google.golang.org/grpc"
)

// Ordinary images alone.
var noDaemon = []string{"--no-daemon"}

// start runs the program, whose words may begin with those of another that runs it, and waits until somebody listens.
func start(root string, options []string, program ...string) (*exec.Cmd, string, error) {
	socket := filepath.Join(filepath.Dir(root), "s.sock")
	words := append(append([]string{}, program[1:]...), "--address", socket, "--root", root)
	command := exec.Command(program[0], append(words, options...)...)
	command.Stderr = os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := command.Start(); err != nil {
		return nil, "", err
	}
	ended := make(chan struct{})
	go func() {
		// Without taking its status, which is for whoever started it.
		var info [128]byte
		syscall.Syscall6(syscall.SYS_WAITID, 1, uintptr(command.Process.Pid), uintptr(unsafe.Pointer(&info)), syscall.WEXITED|0x1000000, 0, 0)
		close(ended)
	}()
	for until := time.Now().Add(2 * time.Minute); time.Now().Before(until); time.Sleep(10 * time.Millisecond) {
		select {
		case <-ended:
			return command, "", fmt.Errorf("%s ended before it listened", program[0])
		default:
		}
		if conn, err := net.Dial("unix", socket); err == nil {
			conn.Close()
			return command, socket, nil
		}
	}
	command.Process.Kill()
	return nil, "", fmt.Errorf("nobody listens on %s", socket)
}

func dial(socket string) (*grpc.ClientConn, error) {
	return grpc.Dial("unix://"+socket, grpc.WithInsecure(), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)))
}

// open gives a snapshotter, and what ends it: with SIGTERM, which must end the program well.
func open(ctx context.Context, root string) (snapshots.Snapshotter, func() error, error) {
	command, socket, err := start(root, noDaemon, os.Getenv("IMGFS_SNAPSHOTTER"))
	if err != nil {
		return nil, nil, err
	}
	conn, err := dial(socket)
	if err != nil {
		command.Process.Kill()
		return nil, nil, err
	}
	finish := func() error {
		conn.Close()
		if err := command.Process.Signal(syscall.SIGTERM); err != nil {
			return err
		}
		return command.Wait()
	}
	return proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(conn), "imgfs"), finish, nil
}

func TestSuite(t *testing.T) {
	// With this name the suite knows what a rename of a directory of a lower layer does on overlayfs.
	testsuite.SnapshotterSuite(t, "overlayfs", open)
}
