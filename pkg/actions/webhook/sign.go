package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
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

// appendSignature appends v1,<base64 of HMAC-SHA256 of "id.timestamp.body">.
func appendSignature(dst, key []byte, id, timestamp string, body []byte) []byte {
	signed := make([]byte, 0, len(id)+len(timestamp)+2)
	signed = append(signed, id...)
	signed = append(signed, '.')
	signed = append(signed, timestamp...)
	signed = append(signed, '.')
	mac := hmac.New(sha256.New, key)
	mac.Write(signed)
	mac.Write(body)
	var sum [sha256.Size]byte
	dst = append(dst, "v1,"...)
	return base64.StdEncoding.AppendEncode(dst, mac.Sum(sum[:0]))
}
