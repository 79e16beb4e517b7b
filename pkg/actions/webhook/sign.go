package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"hash"
	"strings"
	"sync"
)

// secretPrefix begins a secret that is written in base64, as Standard Webhooks has it; any other is taken as it is.
const secretPrefix = "whsec_"

func signingKey(text string) ([]byte, error) {
	encoded, ok := strings.CutPrefix(text, secretPrefix)
	if !ok {
		return []byte(text), nil
	}
	key, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, fmt.Errorf("what follows %s is not base64", secretPrefix)
	}
	return key, nil
}

// signer signs with one secret. Its states have taken the key in before, which costs as much as half a body.
type signer struct {
	text   string    // the secret that the key was made of
	states sync.Pool // of hash.Hash
}

func newSigner(text string) (*signer, error) {
	key, err := signingKey(text)
	if err != nil {
		return nil, err
	}
	return &signer{text: text, states: sync.Pool{New: func() any { return hmac.New(sha256.New, key) }}}, nil
}

// append appends v1,<base64 of HMAC-SHA256 of "id.timestamp.body">.
func (s *signer) append(dst []byte, id, timestamp string, body []byte) []byte {
	mac := s.states.Get().(hash.Hash)
	defer s.states.Put(mac)
	mac.Reset()
	var room [192]byte
	signed := append(append(append(append(room[:0], id...), '.'), timestamp...), '.')
	mac.Write(signed)
	mac.Write(body)
	var sum [sha256.Size]byte
	dst = append(dst, "v1,"...)
	return base64.StdEncoding.AppendEncode(dst, mac.Sum(sum[:0]))
}

// signers are those of the secrets that were used last, by their references: a secret that is replaced replaces its signer.
type signers struct{ byReference sync.Map }

func (s *signers) of(reference, text string) (*signer, error) {
	if known, ok := s.byReference.Load(reference); ok && known.(*signer).text == text {
		return known.(*signer), nil
	}
	fresh, err := newSigner(text)
	if err != nil {
		return nil, fmt.Errorf("secret %s: %w", reference, err)
	}
	s.byReference.Store(reference, fresh)
	return fresh, nil
}
