package config_test

import (
	"bytes"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tributary-dev/tributary/internal/config"
)

func TestDocumentIsAsTheCodeHasIt(t *testing.T) {
	const page = "../../docs/configuration.md"
	var got bytes.Buffer
	if err := config.Document(&got); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(page, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("%s is not as the code has it (-update rewrites it):\n%s", page, diff)
	}
}
