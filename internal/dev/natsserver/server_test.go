package natsserver_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/tributary-dev/tributary/internal/dev/natsserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStartKeepsWhatWasStored(t *testing.T) {
	dir := t.TempDir()
	first := start(t, natsserver.Options{StoreDir: dir})
	js, done := connect(t, first)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "s.1", []byte("kept")); err != nil {
		t.Fatal(err)
	}
	done()
	first.Shutdown()

	js, _ = connect(t, start(t, natsserver.Options{StoreDir: dir}))
	stream, err := js.Stream(t.Context(), "S")
	if err != nil {
		t.Fatal(err)
	}
	if got := stream.CachedInfo().State.Msgs; got != 1 {
		t.Errorf("the second server has %d messages, want 1", got)
	}
}

func TestStartRefusesAStoreInUse(t *testing.T) {
	dir := t.TempDir()
	first := start(t, natsserver.Options{StoreDir: dir})
	if _, err := natsserver.Start(natsserver.Options{StoreDir: dir}); !errors.Is(err, natsserver.ErrStoreInUse) {
		t.Errorf("second server on the same store: got error %v, want ErrStoreInUse", err)
	}
	first.Shutdown()
	start(t, natsserver.Options{StoreDir: dir})
}

func TestStartRefusesATakenPort(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	dir := t.TempDir()
	_, err = natsserver.Start(natsserver.Options{StoreDir: dir, Port: listener.Addr().(*net.TCPAddr).Port})
	if !errors.Is(err, natsserver.ErrPortTaken) {
		t.Errorf("got error %v, want ErrPortTaken", err)
	}
	start(t, natsserver.Options{StoreDir: dir}) // the refused one let go of the store
}

func TestStartSaysWhatIsWrongWithItsStore(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, dir := range map[string]string{"no directory": "", "a file": file} {
		if server, err := natsserver.Start(natsserver.Options{StoreDir: dir}); err == nil {
			server.Shutdown()
			t.Errorf("%s: started", name)
		}
	}
}

func start(t *testing.T, options natsserver.Options) *natsserver.Server {
	t.Helper()
	server, err := natsserver.Start(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Shutdown)
	return server
}

func connect(t *testing.T, server *natsserver.Server) (jetstream.JetStream, func()) {
	t.Helper()
	conn, err := nats.Connect(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return js, conn.Close
}
