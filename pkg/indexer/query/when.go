package query

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// timeRange makes a range of times: a value that names a day, say, is all of it.
func (p *parser) timeRange(field Field, low, high *end) Node {
	r := TimeRange{field, math.MinInt64, math.MaxInt64}
	if low != nil {
		from, to := p.time(low.text, low.at)
		if r.From = from; !low.inclusive {
			r.From = to
		}
	}
	if high != nil {
		from, to := p.time(high.text, high.at)
		if r.To = to; !high.inclusive {
			r.To = from
		}
	}
	return r
}

// forms are how times are written, from coarse to fine, with how much time each names.
var forms = []struct {
	layout           string
	years, months, d int
	span             time.Duration
}{
	{layout: "2006", years: 1},
	{layout: "2006-01", months: 1},
	{layout: time.DateOnly, d: 1},
	{layout: "2006-01-02T15", span: time.Hour},
	{layout: "2006-01-02T15:04", span: time.Minute},
	{layout: "2006-01-02T15:04Z07:00", span: time.Minute},
	{layout: "2006-01-02T15:04:05", span: time.Second},
	{layout: time.RFC3339, span: time.Second},
	{layout: "2006-01-02 15:04:05", span: time.Second},
}

// time reads a time, and gives the milliseconds that it names: from, and before to.
func (p *parser) time(text string, at int) (from, to int64) {
	if rest, ok := strings.CutPrefix(text, "now"); ok {
		return p.relative(rest, at)
	}
	for _, form := range forms {
		t, err := time.Parse(form.layout, text)
		if err != nil {
			continue
		}
		end := t.AddDate(form.years, form.months, form.d).Add(form.span)
		if strings.Contains(text, ".") { // a fraction, which Parse takes behind the seconds
			end = t.Truncate(time.Millisecond).Add(time.Millisecond)
		}
		return t.UnixMilli(), end.UnixMilli()
	}
	p.failAt(at, "a time such as 2026-11-23, 2026-11-23T08:45:53Z, now or now-15m is due here, got %q", text)
	panic("unreachable")
}

// units are what now-<n><unit> may count.
var units = map[byte]time.Duration{
	's': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour,
}

// relative reads what stands behind "now".
func (p *parser) relative(rest string, at int) (from, to int64) {
	now := p.now
	if rest != "" {
		unit, known := units[rest[len(rest)-1]]
		n, err := strconv.ParseUint(strings.TrimLeft(rest[:len(rest)-1], "+-"), 10, 31)
		if !known || err != nil || len(rest) < 3 || (rest[0] != '-' && rest[0] != '+') || n > uint64(math.MaxInt64/int64(unit)) {
			p.failAt(at, "now, now-15m, now-24h or now-7d are due here, got %q", "now"+rest)
		}
		distance := time.Duration(n) * unit
		if rest[0] == '-' {
			distance = -distance
		}
		now = now.Add(distance)
	}
	return now.UnixMilli(), now.UnixMilli() + 1
}
