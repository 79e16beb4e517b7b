// Package embedded keeps documents in a folder, in an index of bleve for each month: for where no Elasticsearch is.
//
// It promises the answers of package elastic to the same questions, documents that survive the process's death once
// Write has returned, and that one process at a time has the folder. It does not replicate: the folder is the index.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"github.com/blevesearch/bleve/v2"
	"github.com/blevesearch/bleve/v2/analysis"
	"github.com/blevesearch/bleve/v2/analysis/analyzer/custom"
	"github.com/blevesearch/bleve/v2/analysis/analyzer/keyword"
	"github.com/blevesearch/bleve/v2/analysis/token/lowercase"
	"github.com/blevesearch/bleve/v2/analysis/tokenizer/unicode"
	"github.com/blevesearch/bleve/v2/mapping"

	"github.com/tributary-dev/tributary/pkg/indexer"
)

// ErrInUse says that another process has the folder.
var ErrInUse = errors.New("another process has the folder of the index")

// Index is the index of a folder. It is safe for concurrent use; Close it.
type Index struct {
	dir      string
	id       string // of what is in the folder
	lock     *os.File
	mapping  mapping.IndexMapping
	analyzer analysis.Analyzer

	writing sync.Mutex   // one Write at a time: it looks for what is there first
	mu      sync.RWMutex // held for reading while an index is used
	months  map[string]bleve.Index
}

const (
	layout    = "v1" // of the folder and of documents
	words     = "words"
	beginning = "beginning-" // of a month's folder until it is whole
)

// Open opens the index of a folder, or makes one. It errors with ErrInUse.
func Open(dir string) (*Index, error) {
	dir = filepath.Join(dir, layout)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the index: %w", err)
	}
	lock, err := lockFile(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("open the index %s: %w", dir, err)
	}
	x := &Index{dir: dir, lock: lock, months: map[string]bleve.Index{}}
	if err := errors.Join(x.identify(), x.setMapping(), x.openMonths()); err != nil {
		return nil, fmt.Errorf("open the index %s: %w", dir, errors.Join(err, x.Close()))
	}
	return x, nil
}

// lockFile takes a lock that ends with the process.
func lockFile(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, ErrInUse
		}
		return nil, err
	}
	return file, nil
}

// setMapping says how texts become words: as Elasticsearch's standard analyzer does it.
func (x *Index) setMapping() error {
	m := bleve.NewIndexMapping()
	m.DefaultAnalyzer = keyword.Name
	err := m.AddCustomAnalyzer(words, map[string]any{
		"type": custom.Name, "tokenizer": unicode.Name, "token_filters": []string{lowercase.Name},
	})
	if err != nil {
		return fmt.Errorf("set the analyzer: %w", err)
	}
	x.mapping, x.analyzer = m, m.AnalyzerNamed(words)
	return nil
}

func (x *Index) openMonths() error {
	entries, err := os.ReadDir(x.dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !indexer.IsMonth(entry.Name()) {
			continue
		}
		if x.months[entry.Name()], err = bleve.Open(filepath.Join(x.dir, entry.Name())); err != nil {
			delete(x.months, entry.Name())
			return fmt.Errorf("open month %s: %w", entry.Name(), err)
		}
	}
	return nil
}

// month gives the index of a month, and makes it where it is not there. The caller holds writing.
func (x *Index) month(month string) (bleve.Index, error) {
	x.mu.RLock()
	index := x.months[month]
	x.mu.RUnlock()
	if index != nil {
		return index, nil
	}
	if !indexer.IsMonth(month) {
		return nil, fmt.Errorf("%q is no month", month)
	}
	// Made elsewhere and moved, so that a month's folder is whole whenever the process dies.
	path, whole := filepath.Join(x.dir, beginning+month), filepath.Join(x.dir, month)
	if err := os.RemoveAll(path); err != nil {
		return nil, err
	}
	index, err := bleve.New(path, x.mapping)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(index.Close(), os.Rename(path, whole)); err != nil {
		return nil, err
	}
	if index, err = bleve.Open(whole); err != nil {
		return nil, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.months[month] = index
	return index, nil
}

// Close closes the index and gives the folder back.
func (x *Index) Close() error {
	x.writing.Lock()
	defer x.writing.Unlock()
	x.mu.Lock()
	defer x.mu.Unlock()
	var errs []error
	for _, index := range x.months {
		errs = append(errs, index.Close())
	}
	clear(x.months)
	return errors.Join(append(errs, x.lock.Close())...)
}

// Months lists the months that there are, ascending.
func (x *Index) Months(context.Context) ([]string, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return slices.AppendSeq([]string{}, slices.Values(slices.Sorted(maps.Keys(x.months)))), nil
}

// Parts gives the months that there are, each with the folder's id.
func (x *Index) Parts(context.Context) (map[string]string, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	parts := make(map[string]string, len(x.months))
	for month := range x.months {
		parts[month] = x.id
	}
	return parts, nil
}

// Drop removes months.
func (x *Index) Drop(_ context.Context, months []string) error {
	x.writing.Lock()
	defer x.writing.Unlock()
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, month := range months {
		index, there := x.months[month]
		if !there {
			continue
		}
		delete(x.months, month)
		if err := errors.Join(index.Close(), os.RemoveAll(filepath.Join(x.dir, month))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove month %s: %w", month, err)
		}
	}
	return nil
}

// Describe tells of all months.
func (x *Index) Describe(ctx context.Context) (indexer.Info, error) {
	months, err := x.Months(ctx)
	if err != nil {
		return indexer.Info{}, err
	}
	info := indexer.Info{Backend: "embedded", Months: months, Identity: "embedded:" + x.id}
	x.mu.RLock()
	defer x.mu.RUnlock()
	for month, index := range x.months {
		count, err := index.DocCount()
		if err != nil {
			return info, fmt.Errorf("count documents of %s: %w", month, err)
		}
		info.Documents += int(count)
	}
	return info, nil
}
