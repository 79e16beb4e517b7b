package embedded_test

import (
	"errors"
	"testing"

	"go.uber.org/goleak"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/indexer"
	"github.com/tributary-dev/tributary/pkg/indexer/embedded"
	"github.com/tributary-dev/tributary/pkg/indexer/indextest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("github.com/blevesearch/bleve_index_api.AnalysisWorker")) // bleve starts them once, for good
}

func open(t *testing.T, dir string) *embedded.Index {
	t.Helper()
	x, err := embedded.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = x.Close() })
	return x
}

func TestIndex(t *testing.T) {
	indextest.Run(t, func(t *testing.T) indextest.Opened {
		return indextest.Opened{Index: open(t, t.TempDir()), Refresh: func() {}}
	})
}

func TestOneProcessHasTheFolder(t *testing.T) {
	dir := t.TempDir()
	x := open(t, dir)
	if _, err := embedded.Open(dir); !errors.Is(err, embedded.ErrInUse) {
		t.Errorf("a second one got %v", err)
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
}

func TestDocumentsOutliveTheProcess(t *testing.T) {
	dir := t.TempDir()
	x := open(t, dir)
	documents := indextest.Documents(t, indextest.Row(1, events.OpInsert, "", `{"id":1}`))
	if _, err := x.Write(t.Context(), documents); err != nil {
		t.Fatal(err)
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	x = open(t, dir)
	outcomes, err := x.Write(t.Context(), documents)
	if err != nil || outcomes[0].State != indexer.Existed {
		t.Errorf("%v %v", outcomes, err)
	}
}

func TestAnyNumberOfColumnsIsTaken(t *testing.T) {
	x := open(t, t.TempDir())
	row := []byte(`{"id":1`)
	for i := range 70_000 { // more than bleve has fields
		row = append(row, `,"c`...)
		row = append(row, byte('a'+i%26), byte('a'+i/26%26), byte('a'+i/676%26), byte('a'+i/17576%26))
		row = append(row, `":1`...)
	}
	documents := indextest.Documents(t, indextest.Row(1, events.OpInsert, "", string(append(row, '}'))))
	outcomes, err := x.Write(t.Context(), documents)
	if err != nil || outcomes[0].State != indexer.Created {
		t.Errorf("%v %v", outcomes, err)
	}
}
