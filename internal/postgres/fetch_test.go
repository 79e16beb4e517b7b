package postgres

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestInstallLeavesNothingOfABadDownload(t *testing.T) {
	for name, c := range map[string]struct {
		sum  string
		want string
	}{
		"another checksum":          {"00", "its SHA-256 is"},
		"right sum, but no archive": {"1f0f631427194028bfeca05414b146420645a4c0ede4b3692c1afc9633557b08", "zip:"},
		"no checksum":               {"", "404"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case !strings.HasSuffix(r.URL.Path, ".sha256"):
					_, _ = w.Write([]byte("not a jar"))
				case c.sum == "":
					http.NotFound(w, r)
				default:
					_, _ = w.Write([]byte(c.sum))
				}
			}))
			defer server.Close()
			home := filepath.Join(t.TempDir(), "cache", "17")
			err := install(t.Context(), server.URL+"/postgres.jar", home)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
			if left, _ := os.ReadDir(filepath.Dir(home)); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestTheBuildsHaveAPlace(t *testing.T) {
	place, err := repository()
	if err != nil || !strings.HasPrefix(place, "https://") {
		t.Errorf("got %q, %v", place, err)
	}
}
