package indexer

import "time"

const monthLayout = "2006.01"

// MonthOf names the month of a time, as YYYY.MM in UTC.
func MonthOf(t time.Time) string { return t.UTC().Format(monthLayout) }

// IsMonth tells whether text is what MonthOf gives.
func IsMonth(text string) bool {
	t, err := time.Parse(monthLayout, text)
	return err == nil && MonthOf(t) == text
}

// past tells whether all of a month lies further back than keep.
func past(month string, keep time.Duration, now time.Time) bool {
	begun, err := time.Parse(monthLayout, month)
	return err == nil && !begun.AddDate(0, 1, 0).Add(keep).After(now)
}
