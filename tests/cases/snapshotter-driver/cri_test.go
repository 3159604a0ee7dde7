package driver

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"google.golang.org/grpc"
)

// raw hands messages on as they are: two of CRI's do not need its whole package, which Debian does not have.
type raw struct{}

func (raw) Marshal(value interface{}) ([]byte, error) { return *value.(*[]byte), nil }
func (raw) Unmarshal(data []byte, value interface{}) error {
	*value.(*[]byte) = append([]byte{}, data...)
	return nil
}
func (raw) Name() string   { return "proto" }
func (raw) String() string { return "proto" }

// field is a text or message of less than 16 KiB with a number of less than 16.
func field(number byte, data []byte) []byte {
	return append([]byte{number<<3 | 2, byte(len(data)&0x7f | 0x80), byte(len(data) >> 7)}, data...)
}

// TestCriPull has CRI pull IMGFS_CRI_IMAGE by containerd's socket IMGFS_CRI_SOCKET, as a kubelet does: PullImageRequest{image: {image}}.
func TestCriPull(t *testing.T) {
	socket := os.Getenv("IMGFS_CRI_SOCKET")
	if socket == "" {
		t.Skip("IMGFS_CRI_SOCKET names a socket")
	}
	conn, err := dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	request, reply := field(1, field(1, []byte(os.Getenv("IMGFS_CRI_IMAGE")))), []byte{}
	if err := conn.Invoke(ctx, "/runtime.v1.ImageService/PullImage", &request, &reply, grpc.ForceCodec(raw{})); err != nil {
		t.Fatal(err)
	}
	fmt.Printf("pulled %q\n", reply)
}
