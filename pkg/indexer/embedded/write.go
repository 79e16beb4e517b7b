package embedded

import (
	"context"
	"fmt"

	"github.com/blevesearch/bleve/v2"
	index "github.com/blevesearch/bleve_index_api"

	"github.com/tributary-dev/tributary/pkg/indexer"
)

// Write creates the documents that are not there; what it has created is on the disk when it returns.
func (x *Index) Write(ctx context.Context, documents []indexer.Document) ([]indexer.Outcome, error) {
	x.writing.Lock()
	defer x.writing.Unlock()
	outcomes := make([]indexer.Outcome, len(documents))
	byMonth := map[string][]int{}
	for i, d := range documents {
		byMonth[d.Month] = append(byMonth[d.Month], i)
	}
	for month, positions := range byMonth {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := x.writeMonth(month, documents, positions, outcomes); err != nil {
			return nil, fmt.Errorf("write documents of %s: %w", month, err)
		}
	}
	return outcomes, nil
}

func (x *Index) writeMonth(month string, documents []indexer.Document, positions []int, outcomes []indexer.Outcome) error {
	into, err := x.month(month)
	if err != nil {
		return err
	}
	ids := make([]string, len(positions))
	for i, position := range positions {
		ids[i] = documents[position].ID
	}
	there, err := existing(into, ids)
	if err != nil {
		return err
	}
	batch := into.NewBatch()
	for _, position := range positions {
		d := documents[position]
		if there[d.ID] {
			outcomes[position].State = indexer.Existed
			continue
		}
		there[d.ID] = true
		document, err := x.document(d)
		if err == nil {
			err = batch.IndexAdvanced(document)
		}
		if err != nil {
			outcomes[position] = indexer.Outcome{State: indexer.Refused, Err: err}
		}
	}
	if batch.Size() == 0 {
		return nil
	}
	return into.Batch(batch)
}

// existing tells which of the documents are there.
func existing(in bleve.Index, ids []string) (there map[string]bool, err error) {
	there = map[string]bool{}
	advanced, err := in.Advanced()
	if err != nil {
		return nil, err
	}
	reader, err := advanced.Reader()
	if err != nil {
		return nil, err
	}
	defer func() { err = firstOf(err, reader.Close()) }()
	only, ok := reader.(interface {
		DocIDReaderOnly(ids []string) (index.DocIDReader, error)
	})
	if !ok {
		return nil, fmt.Errorf("the index %T can't look for ids", reader)
	}
	found, err := only.DocIDReaderOnly(ids)
	if err != nil {
		return nil, err
	}
	defer func() { err = firstOf(err, found.Close()) }()
	for {
		internal, err := found.Next()
		if err != nil {
			return nil, err
		}
		if internal == nil {
			return there, nil
		}
		id, err := reader.ExternalID(internal)
		if err != nil {
			return nil, err
		}
		there[id] = true
	}
}

func firstOf(err, later error) error {
	if err != nil {
		return err
	}
	return later
}
