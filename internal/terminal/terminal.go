// Package terminal tells terminals from what else programs read from and write to.
package terminal

import "os"

// Is tells whether a stream, such as os.Stdin, is a terminal: a character device, but not the one that holds nothing, which
// schedulers hand to what they start.
func Is(stream any) bool {
	file, ok := stream.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}
