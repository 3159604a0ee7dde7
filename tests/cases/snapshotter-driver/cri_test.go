package driver

import (
	"context"
	"os"
	"testing"
	"time"

	"google.golang.org/grpc"
)

// raw hands messages on as they are: the case writes them itself, since Debian does not have the package of CRI's.
type raw struct{}

func (raw) Marshal(value interface{}) ([]byte, error) { return *value.(*[]byte), nil }
func (raw) Unmarshal(data []byte, value interface{}) error {
	*value.(*[]byte) = append([]byte{}, data...)
	return nil
}
func (raw) Name() string   { return "proto" }
func (raw) String() string { return "proto" }

// TestCriCall makes the call IMGFS_CRI_METHOD at containerd's socket IMGFS_CRI_SOCKET, as a kubelet does, with the request in the file
// IMGFS_CRI_REQUEST, and leaves the reply in the file IMGFS_CRI_REPLY.
func TestCriCall(t *testing.T) {
	socket := os.Getenv("IMGFS_CRI_SOCKET")
	if socket == "" {
		t.Skip("IMGFS_CRI_SOCKET names a socket")
	}
	request, err := os.ReadFile(os.Getenv("IMGFS_CRI_REQUEST"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	reply := []byte{}
	if err := conn.Invoke(ctx, os.Getenv("IMGFS_CRI_METHOD"), &request, &reply, grpc.ForceCodec(raw{})); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(os.Getenv("IMGFS_CRI_REPLY"), reply, 0o600); err != nil {
		t.Fatal(err)
	}
}
