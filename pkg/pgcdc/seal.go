package pgcdc

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
)

// A cursor holds the key of the last row that was read, and is stored in EVENTS. Where a column of the key is masked, its
// value is sealed there: under the key of the masks, or, where there is none, one that is made of the connection string,
// which every reader of the source has and no reader of EVENTS. When either changes, the table is read again from its
// first row.

// sealMark begins a sealed value. No text of PostgreSQL's has a zero byte.
const sealMark = 0

func (s *Source) sealer() (cipher.AEAD, error) {
	secret := s.opts.MaskKey
	if len(secret) == 0 {
		secret = []byte(s.opts.ConnString)
	}
	derive := hmac.New(sha256.New, secret)
	derive.Write([]byte("tributary cursor of " + s.opts.Name))
	block, err := aes.NewCipher(derive.Sum(nil))
	if err != nil {
		return nil, fmt.Errorf("seal the cursor of %s: %w", s.opts.Name, err)
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// seal gives what may be stored of the values of a row's key columns.
func (s *Source) seal(rel *relation, key [][]byte) ([][]byte, error) {
	sealed := key
	for n, i := range rel.key {
		if rel.columns[i].mask == nil || n >= len(key) {
			continue
		}
		if len(sealed) > 0 && &sealed[0] == &key[0] {
			sealed = append([][]byte(nil), key...)
		}
		box, err := s.sealer()
		if err != nil {
			return nil, err
		}
		sealed[n] = box.Seal([]byte{sealMark}, nil, key[n], nil)
	}
	return sealed, nil
}

// open is the reverse of seal; false where what was stored was sealed otherwise.
func (s *Source) open(stored [][]byte) (key [][]byte, ok bool) {
	for _, value := range stored {
		if len(value) == 0 || value[0] != sealMark {
			key = append(key, value)
			continue
		}
		box, err := s.sealer()
		if err != nil {
			return nil, false
		}
		text, err := box.Open(nil, nil, value[1:], nil)
		if err != nil {
			return nil, false
		}
		key = append(key, text)
	}
	return key, true
}

// unseal gives the key behind which a table is to be read on, and none, to begin it anew, where it can't be known.
func (s *Source) unseal(rel *relation, stored [][]byte) [][]byte {
	key, ok := s.open(stored)
	if !ok {
		s.opts.Log.Warn("the key of the last row that was read can't be unsealed: the table is read again from its first row", "table", rel.String())
	}
	return key
}
