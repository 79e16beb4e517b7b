package pgcdc

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// span is rows by their places: from (Block, Item) on, and before block End; to the end of the file where End is 0.
type span struct {
	Block uint32 `json:"b"`
	Item  uint16 `json:"i,omitempty"`
	End   uint32 `json:"e,omitempty"`
}

// condition gives it in SQL, so that the server reads these blocks alone.
func (s span) condition() string {
	text := "ctid >= '(" + strconv.FormatUint(uint64(s.Block), 10) + "," + strconv.FormatUint(uint64(s.Item), 10) + ")'"
	if s.End > 0 {
		text += " AND ctid < '(" + strconv.FormatUint(uint64(s.End), 10) + ",0)'"
	}
	return text
}

// piece is a table that has a file, and what of it is not stored: a table, or a partition of one that is published whole.
type piece struct {
	As   uint32 `json:"as"` // the OID of the table that it is published as
	OID  uint32 `json:"oid"`
	File uint32 `json:"file"`           // whose places Left has
	Left []span `json:"left,omitempty"` // ascending; none where all is stored
}

// leftCondition tells in SQL which rows of some pieces are left: of those in rewritten, whose places say nothing any more,
// all.
func leftCondition(pieces []piece, rewritten map[uint32]bool) string {
	var parts []string
	for i := range pieces {
		p := &pieces[i]
		if len(p.Left) == 0 {
			continue
		}
		var spans []string
		for _, s := range p.Left {
			spans = append(spans, "("+s.condition()+")")
		}
		text := "tableoid = " + strconv.FormatUint(uint64(p.OID), 10)
		if !rewritten[p.OID] {
			text += " AND (" + strings.Join(spans, " OR ") + ")"
		}
		parts = append(parts, "("+text+")")
	}
	if len(parts) == 0 {
		return "false"
	}
	return strings.Join(parts, " OR ")
}

// planned is a piece with what the plan knows of it.
type planned struct {
	piece
	table  *snapshotTable
	name   string // of the piece itself, quoted
	blocks uint32
	bytes  int64 // that it takes, with what is out of line
	past   bool  // all its rows are read, or left to watermarks: nothing of it is handed out
	next   uint32
	shared bool          // all of it was handed out
	open   []*blockChunk // that are being read, ascending
	done   uint32        // blocks
}

// blockChunk is some blocks of a piece, which one connection reads.
type blockChunk struct {
	piece *planned
	left  span // guarded by the plan
}

// plan shares pieces out in chunks, and knows which rows are stored. It is safe for concurrent use.
type plan struct {
	chunkBlocks uint32

	mu     sync.Mutex
	pieces []*planned // ascending; guarded by mu
	next   int        // the first piece that is not handed out whole; guarded by mu
	first  int        // all before are stored; guarded by mu
}

// take gives the next chunk; nil where all was handed out.
func (p *plan) take() *blockChunk {
	p.mu.Lock()
	defer p.mu.Unlock()
	for ; p.next < len(p.pieces); p.next++ {
		piece := p.pieces[p.next]
		switch {
		case piece.past || piece.shared:
			continue
		case piece.blocks == 0: // and no row that the snapshot sees
			piece.shared = true
			continue
		}
		c := &blockChunk{piece: piece, left: span{Block: piece.next, End: piece.next + p.chunkBlocks}}
		if c.left.End >= piece.blocks || c.left.End < piece.next {
			c.left.End, piece.shared = 0, true // what the file has grown by holds nothing that the snapshot sees
		}
		piece.next = c.left.End
		piece.open = append(piece.open, c)
		return c
	}
	return nil
}

// advance notes that the rows of a chunk are put up to a place.
func (p *plan) advance(c *blockChunk, at place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.piece.done += uint32(at.block) - c.left.Block
	c.left.Block, c.left.Item = uint32(at.block), uint16(at.item)+1
}

// finish notes that all rows of a chunk are put.
func (p *plan) finish(c *blockChunk) {
	p.mu.Lock()
	defer p.mu.Unlock()
	piece := c.piece
	end := c.left.End
	if end == 0 {
		end = max(piece.blocks, c.left.Block)
	}
	piece.done += end - c.left.Block
	piece.open = slices.DeleteFunc(piece.open, func(other *blockChunk) bool { return other == c })
}

func (p *planned) stored() bool { return p.shared && len(p.open) == 0 }

// left gives what is not stored: the piece before which all is, and those behind it that are not untouched.
func (p *plan) left() (as, oid uint32, open []piece) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.first < len(p.pieces) && p.pieces[p.first].stored() {
		p.first++
	}
	if p.first == len(p.pieces) {
		return math.MaxUint32, 0, nil
	}
	for _, piece := range p.pieces[p.first:] {
		if piece.past || piece.shared || piece.next > 0 || !piece.table.keyed() { // a place says nothing without its file
			open = append(open, piece.rest())
		}
	}
	return p.pieces[p.first].As, p.pieces[p.first].OID, open
}

// rest gives what of a piece is not stored.
func (p *planned) rest() piece {
	rest := p.piece
	rest.Left = nil
	if p.past {
		rest.Left = []span{{}}
		return rest
	}
	for _, c := range p.open {
		rest.Left = append(rest.Left, c.left)
	}
	if !p.shared {
		rest.Left = append(rest.Left, span{Block: p.next})
	}
	return rest
}

// done tells how much was read: the part of all bytes.
func (p *plan) done() float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all, done float64
	for _, piece := range p.pieces {
		all += float64(piece.bytes)
		switch {
		case piece.stored():
			done += float64(piece.bytes)
		case piece.blocks > 0:
			done += float64(piece.bytes) * min(1, float64(piece.done)/float64(piece.blocks))
		}
	}
	if all == 0 {
		return 1
	}
	return done / all
}

// bytes is the size of all that is to be read.
func (p *plan) bytes() (all int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, piece := range p.pieces {
		all += piece.bytes
	}
	return all
}
