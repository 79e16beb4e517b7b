package events

import (
	"errors"
	"fmt"
	"strings"
)

// maxSubject is how long a subject may be. Servers close a connection that sends a longer control line than 4 KiB.
const maxSubject = 1024

// ownPrefixes are the subjects that Tributary and the server keep their state under.
var ownPrefixes = []string{prefixEvents, prefixPositions, "jobs.", "deadletters.", "_INBOX.", "$"}

// CheckTarget errors where a message that is made of an event's data may not be published to subject: it is none, holds a
// wildcard, or belongs to Tributary or to the server.
func CheckTarget(subject string) error {
	if subject == "" {
		return errors.New("the subject is empty")
	}
	if len(subject) > maxSubject {
		return fmt.Errorf("the subject has %d bytes, more than %d", len(subject), maxSubject)
	}
	for i := range len(subject) {
		if c := subject[i]; c <= ' ' || c == 0x7F {
			return fmt.Errorf("a subject can't hold the character %q", c)
		}
	}
	for token := range strings.SplitSeq(subject, ".") {
		switch token {
		case "":
			return errors.New("a token of the subject is empty")
		case "*", ">":
			return fmt.Errorf("a message can't be published to the wildcard %s", token)
		}
	}
	for _, prefix := range ownPrefixes {
		if strings.HasPrefix(subject, prefix) {
			return fmt.Errorf("subjects that begin with %s are not to be published to", prefix)
		}
	}
	return nil
}
