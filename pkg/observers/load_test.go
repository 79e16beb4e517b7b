package observers_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tributary-dev/tributary/pkg/observers"
)

var update = flag.Bool("update", false, "write the golden files")

// TestErrorsShowThePlaceAndTheWayOut parses testdata/errors/*.yaml and compares what people read with *.txt.
func TestErrorsShowThePlaceAndTheWayOut(t *testing.T) {
	files, err := filepath.Glob("testdata/errors/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = observers.Parse("observers.yaml", text)
			var located *observers.Error
			if !errors.As(err, &located) {
				t.Fatalf("the file gave %v, want an error with a place", err)
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".txt"
			got := err.Error() + "\n"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", golden, diff)
			}
		})
	}
}

func TestByteOrderMarkInFrontIsNoKey(t *testing.T) {
	parse(t, "\uFEFFobservers: []\n")
}
