package freeport_test

import (
	"fmt"
	"net"
	"os"
	"testing"

	"github.com/tributary-dev/tributary/internal/freeport"
)

func TestNobodyIsGivenThePortByChance(t *testing.T) {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		t.Skip("the system does not say which ports it gives out")
	}
	var low int
	if _, err := fmt.Sscan(string(text), &low); err != nil || low < 20_000 {
		t.Skipf("the system gives out ports from %d", low)
	}
	seen := map[int]bool{}
	for range 50 {
		port, err := freeport.Get()
		if err != nil {
			t.Fatal(err)
		}
		if port >= low || seen[port] {
			t.Fatalf("got %d, seen %v, and the system gives out those from %d", port, seen[port], low)
		}
		seen[port] = true
	}
}

func TestAPortThatIsListenedOnIsPassedBy(t *testing.T) {
	var taken []int
	for range 20 {
		port, err := freeport.Get()
		if err != nil {
			t.Fatal(err)
		}
		// The next two are what Get would give next.
		for _, next := range []int{port + 1, port + 2} {
			if listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", next)); err == nil {
				defer listener.Close()
				taken = append(taken, next)
			}
		}
		again, err := freeport.Get()
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range taken {
			if again == one {
				t.Fatalf("got %d, which is listened on", again)
			}
		}
	}
}
