package streams

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// settings are those of one stream, as JSON has them. Numbers are json.Number.
type settings map[string]any

func (s settings) name() string {
	name, _ := s["name"].(string)
	return name
}

func number[T ~int | ~int64](n T) json.Number { return json.Number(strconv.FormatInt(int64(n), 10)) }

func load(name string) (settings, error) {
	data, err := files.ReadFile(name + ".json")
	if err != nil {
		return nil, err
	}
	return decode(data)
}

func decode(data []byte) (settings, error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var s settings
	if err := decoder.Decode(&s); err != nil {
		return nil, fmt.Errorf("decode stream settings: %w", err)
	}
	return s, nil
}

// config gives the settings in the client's form. A setting that the client does not know is an error.
func (s settings) config() (jetstream.StreamConfig, error) {
	var config jetstream.StreamConfig
	data, err := json.Marshal(s)
	if err != nil {
		return config, fmt.Errorf("encode stream settings: %w", err)
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&config); err != nil {
		return config, fmt.Errorf("decode stream settings: %w", err)
	}
	return config, nil
}

func settingsOf(config jetstream.StreamConfig) (settings, error) {
	data, err := json.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("encode stream settings: %w", err)
	}
	return decode(data)
}

// difference is a setting that is not as it should be.
type difference struct {
	setting   string
	has, want any
}

func (d difference) String() string {
	return fmt.Sprintf("%s is %s and should be %s", d.setting, show(d.has), show(d.want))
}

func show(value any) string {
	if value == nil {
		return "not set"
	}
	data, err := json.Marshal(value)
	if err != nil {
		return fmt.Sprint(value)
	}
	return string(data)
}

// diff lists where has is not as want asks for, by name of the setting. Metadata is asked for key by key.
func diff(has, want settings) []difference {
	var differences []difference
	for _, setting := range slices.Sorted(maps.Keys(want)) {
		h, w := has[setting], want[setting]
		if setting == "metadata" {
			differences = append(differences, diffMetadata(h, w)...)
			continue
		}
		if reflect.DeepEqual(h, w) || isZero(h) && isZero(w) {
			continue
		}
		differences = append(differences, difference{setting, h, w})
	}
	return differences
}

func diffMetadata(has, want any) []difference {
	h, _ := has.(map[string]any)
	w, _ := want.(map[string]any)
	var differences []difference
	for _, key := range slices.Sorted(maps.Keys(w)) {
		if h[key] == nil { // one that is there was given when the stream was made, and stays
			differences = append(differences, difference{"metadata " + key, nil, w[key]})
		}
	}
	return differences
}

// isZero tells what the server leaves out of an answer from what it names.
func isZero(value any) bool {
	return value == nil || value == false || value == "" || value == json.Number("0")
}

// overlay gives has with what want names in its place.
func overlay(has, want settings) settings {
	merged := maps.Clone(has)
	maps.Copy(merged, want)
	w, _ := want["metadata"].(map[string]any)
	h, _ := has["metadata"].(map[string]any)
	metadata := maps.Clone(w)
	if metadata == nil {
		metadata = map[string]any{}
	}
	maps.Copy(metadata, h)
	maps.DeleteFunc(metadata, func(key string, _ any) bool { return strings.HasPrefix(key, "_nats.") }) // the server's own
	merged["metadata"] = metadata
	return merged
}

// fixed says why a difference can't be mended in place, or "".
func (d difference) fixed() string {
	turnedOff := func(why string) string {
		if d.has == true {
			return why
		}
		return ""
	}
	switch d.setting {
	case "storage":
		return "a stream stays on the storage it was made on"
	case "retention":
		if d.has == "workqueue" || d.want == "workqueue" {
			return "a stream can't become a work queue, nor stop being one"
		}
		return ""
	case "deny_delete", "deny_purge":
		return turnedOff("what was denied once stays denied")
	case "sealed":
		return turnedOff("a sealed stream stays sealed")
	case "allow_msg_ttl":
		return turnedOff("messages with a TTL may be stored")
	case "allow_msg_schedules":
		return turnedOff("schedules may be stored")
	default:
		return ""
	}
}
