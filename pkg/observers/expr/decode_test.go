package expr

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzDecodeJSON holds the decoder and the encoder against encoding/json: they take the same texts, and give the same
// values, numbers digit for digit.
func FuzzDecodeJSON(f *testing.F) {
	for _, seed := range []string{
		`{"a":[1,-2.50,1e3,true,false,null,"x"],"b":{}}`, `"\ud83d\ude00\ud83d \u0000\/\b"`, `{"a":1,"a":2}`, "\"\xff\xfe\"",
		`[]`, ` [ 1 , 2 ] `, `{"data":{"x":[{"y":"]}"}]},"z":1}`, `-0`, `01`, `1.`, `"\x"`, `{"a"}`, `[1,]`, `18446744073709551615`,
		"\"\x00\"", `"\ud83dx"`, `"\u12"`, `nul`, `1 2`, `{,}`, ``,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		value, err := decodeJSON(string(data))
		if ok := json.Valid(data); ok != (err == nil) && !errors.Is(err, errDepth) {
			t.Fatalf("decodeJSON(%q) gave %v, encoding/json takes it: %t", data, err, ok)
		}
		if err != nil {
			return
		}
		ours, err := appendJSON(nil, value)
		if err != nil {
			return // a result over the limit
		}
		if want, got := generic(t, data), generic(t, ours); !cmp.Equal(want, got) {
			t.Fatalf("%q became %s:\n%s", data, ours, cmp.Diff(want, got))
		}
		again, err := decodeJSON(string(ours))
		if err != nil {
			t.Fatal(err)
		}
		if twice, err := appendJSON(nil, again); err != nil || !bytes.Equal(ours, twice) {
			t.Fatalf("%q is written as %s, then as %s (%v)", data, ours, twice, err)
		}
	})
}

// generic decodes with encoding/json; numbers stay texts, in which both sides agree.
func generic(t *testing.T, data []byte) any {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil && !errors.Is(err, io.EOF) {
		t.Fatalf("encoding/json reads %q: %v", data, err)
	}
	return value
}

func TestDecodeRefusesDeepNesting(t *testing.T) {
	deep := strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1)
	if _, err := decodeJSON(deep); !errors.Is(err, errDepth) {
		t.Errorf("%d levels gave %v", maxDepth+1, err)
	}
	fits := strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth)
	value, err := decodeJSON(fits)
	if err != nil {
		t.Fatalf("%d levels: %v", maxDepth, err)
	}
	if got, err := appendJSON(nil, value); err != nil || string(got) != fits {
		t.Errorf("%d levels were written as %.20s…, %v", maxDepth, got, err)
	}
}
