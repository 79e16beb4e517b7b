package config

import (
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"
)

var (
	durationType = reflect.TypeFor[time.Duration]()
	sizeType     = reflect.TypeFor[Size]()
	secretType   = reflect.TypeFor[Secret]()
	prefixType   = reflect.TypeFor[netip.Prefix]()
	maskType     = reflect.TypeFor[Mask]()
)

// typeName is what a user calls the type of a key; empty for a section.
func typeName(t reflect.Type) string {
	switch {
	case t == durationType:
		return "duration"
	case t == sizeType:
		return "size"
	case t == secretType:
		return "secret"
	case t == prefixType:
		return "network"
	case t.Kind() == reflect.String:
		return "text"
	case t.Kind() == reflect.Int:
		return "number"
	case t.Kind() == reflect.Float64:
		return "fraction"
	case t.Kind() == reflect.Bool:
		return "bool"
	case t == maskType:
		return "names with values"
	case t.Kind() == reflect.Slice && typeName(t.Elem()) != "":
		return "list of " + typeName(t.Elem()) + "s"
	default:
		return ""
	}
}

// setText sets v, a scalar, from the text of a file, a variable or a flag. The error completes "<path> must be …".
func setText(v reflect.Value, text string) error {
	switch typeName(v.Type()) {
	case "duration":
		d, err := parseDuration(text)
		if err != nil {
			return err
		}
		v.SetInt(int64(d))
	case "size":
		size, err := ParseSize(text)
		if err != nil {
			return err
		}
		v.SetInt(int64(size))
	case "number":
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("a whole number, got %q", redact(text))
		}
		v.SetInt(int64(n))
	case "fraction":
		n, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
			return fmt.Errorf("a number such as 0.5, got %q", redact(text))
		}
		v.SetFloat(n)
	case "bool":
		if text != "true" && text != "false" {
			return fmt.Errorf("true or false, got %q", redact(text))
		}
		v.SetBool(text == "true")
	case "network":
		prefix, err := parsePrefix(text)
		if err != nil {
			return err
		}
		v.Set(reflect.ValueOf(prefix))
	case "secret":
		v.Set(reflect.ValueOf(Secret{reference: text}))
	case "text":
		v.SetString(text)
	default:
		panic("config: no text for a field of type " + v.Type().String())
	}
	return nil
}

// setList sets v, a list of scalars, from texts.
func setList(v reflect.Value, texts []string) error {
	list := reflect.MakeSlice(v.Type(), len(texts), len(texts))
	for i, text := range texts {
		if err := setText(list.Index(i), text); err != nil {
			return err
		}
	}
	v.Set(list)
	return nil
}

// setFromLine sets v from one line of text, as variables, flags and defaults have it: a list's items are separated by commas.
func setFromLine(v reflect.Value, line string) error {
	if v.Kind() != reflect.Slice {
		return setText(v, line)
	}
	var texts []string
	for item := range strings.SplitSeq(line, ",") {
		if item = strings.TrimSpace(item); item != "" {
			texts = append(texts, item)
		}
	}
	return setList(v, texts)
}

func parseDuration(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil && n <= 36500 {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("a duration such as 250ms, 10s, 4m, 24h or 7d, got %q", redact(text))
	}
	return d, nil
}

// sizeUnits are tried in order, so that a longer suffix comes before a shorter one.
var sizeUnits = []struct {
	suffix string
	bytes  int64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"KB", 1e3}, {"B", 1}, {"", 1},
}

// ParseSize reads a whole number of bytes, KiB, MiB, GiB, TiB, kB, MB, GB or TB. The error completes "<key> must be …".
func ParseSize(text string) (Size, error) {
	invalid := fmt.Errorf("a size such as 65536, 64KiB, 16MiB or 1GiB, got %q", redact(text))
	for _, unit := range sizeUnits {
		digits, ok := strings.CutSuffix(text, unit.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n > math.MaxInt64/unit.bytes || n < math.MinInt64/unit.bytes {
			return 0, invalid
		}
		return Size(n * unit.bytes), nil
	}
	return 0, invalid
}

// String gives the size in the largest unit that divides it: 1GiB, 1500B.
func (s Size) String() string {
	for _, unit := range sizeUnits[:4] {
		if s != 0 && int64(s)%unit.bytes == 0 {
			return strconv.FormatInt(int64(s)/unit.bytes, 10) + unit.suffix
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

func parsePrefix(text string) (netip.Prefix, error) {
	if address, err := netip.ParseAddr(text); err == nil && address.Zone() == "" {
		return netip.PrefixFrom(address, address.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("a network such as 10.0.0.0/8 or fd00::/8, got %q", redact(text))
	}
	if prefix != prefix.Masked() {
		return netip.Prefix{}, fmt.Errorf("a network, got the address of a host %q; write %s", text, prefix.Masked())
	}
	return prefix, nil
}

// format is the reverse of setFromLine, for errors and help.
func format(v reflect.Value) string {
	if v.Kind() == reflect.Slice {
		items := make([]string, v.Len())
		for i := range items {
			items[i] = format(v.Index(i))
		}
		return strings.Join(items, ",")
	}
	switch value := v.Interface().(type) {
	case time.Duration:
		return shortDuration(value)
	case fmt.Stringer:
		return value.String()
	default:
		return redact(fmt.Sprint(value))
	}
}

// shortDuration writes 4m for 4m0s.
func shortDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
