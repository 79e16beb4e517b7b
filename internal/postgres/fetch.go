package postgres

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
	"github.com/xi2/xz"
)

// DefaultVersion is what Locate fetches where no PostgreSQL is installed.
const DefaultVersion = "17.5.0"

// repository is where the builds of https://github.com/zonkyio/embedded-postgres-binaries are served, each a jar that holds
// one tar.xz. The library that made them usable in Go knows the place, and where it moves to; its own Start, which alone
// fetches there, refuses root.
func repository() (string, error) {
	place := reflect.ValueOf(embeddedpostgres.DefaultConfig()).FieldByName("binaryRepositoryURL")
	if place.Kind() != reflect.String || place.Len() == 0 {
		return "", errors.New("the library embedded-postgres does not tell where its builds are: install PostgreSQL, or name its programs' folder in PGBIN")
	}
	return place.String() + "/io/zonky/test/postgres/", nil
}

// maxJar bounds what is read; a jar has about 15 MB.
const maxJar = 256 << 20

// Fetch gives the binaries of a version such as 16.9.0, downloading them once into the user's cache folder. It is safe for
// several processes at once.
func Fetch(ctx context.Context, version string) (Binaries, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	artifact := "embedded-postgres-binaries-" + platform()
	home := filepath.Join(cache, "tributary", "postgres", version+"-"+platform())
	if b, err := inspect(ctx, filepath.Join(home, "bin")); err == nil {
		return b, nil
	}
	place, err := repository()
	if err != nil {
		return Binaries{}, err
	}
	address := place + artifact + "/" + version + "/" + artifact + "-" + version + ".jar"
	if err := install(ctx, address, home); err != nil {
		return Binaries{}, fmt.Errorf("fetch PostgreSQL %s from %s: %w", version, address, err)
	}
	return inspect(ctx, filepath.Join(home, "bin"))
}

// platform names system and processor as the builds do.
func platform() string {
	arch := runtime.GOARCH
	if arch == "arm64" {
		arch = "arm64v8"
	}
	if _, err := os.Stat("/etc/alpine-release"); err == nil {
		arch += "-alpine"
	}
	return runtime.GOOS + "-" + arch
}

// install unpacks beside home and renames, so that home is whole or not there, whoever else does the same.
func install(ctx context.Context, address, home string) error {
	jar, err := download(ctx, address)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(home), 0o755); err != nil {
		return err
	}
	fresh, err := os.MkdirTemp(filepath.Dir(home), "unpack-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(fresh)
	if err := unpackJar(jar, fresh); err != nil {
		return err
	}
	if err := os.Chmod(fresh, 0o755); err != nil {
		return err
	}
	err = os.Rename(fresh, home)
	if _, there := os.Stat(filepath.Join(home, "bin", "postgres")); err != nil && there == nil {
		return nil // another process was faster
	}
	return err
}

func download(ctx context.Context, address string) ([]byte, error) {
	client := &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()}
	defer client.CloseIdleConnections()
	jar, err := get(ctx, client, address)
	if err != nil {
		return nil, err
	}
	want, err := get(ctx, client, address+".sha256")
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(jar)
	if got := hex.EncodeToString(sum[:]); !strings.EqualFold(got, strings.TrimSpace(string(want))) {
		return nil, fmt.Errorf("its SHA-256 is %s, and should be %s", got, want)
	}
	return jar, nil
}

func get(ctx context.Context, client *http.Client, address string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s", response.Status)
	}
	return io.ReadAll(io.LimitReader(response.Body, maxJar))
}

func unpackJar(jar []byte, dir string) error {
	archive, err := zip.NewReader(bytes.NewReader(jar), int64(len(jar)))
	if err != nil {
		return err
	}
	for _, file := range archive.File {
		if !strings.HasSuffix(file.Name, ".txz") {
			continue
		}
		packed, err := file.Open()
		if err != nil {
			return err
		}
		defer packed.Close()
		plain, err := xz.NewReader(packed, 0)
		if err != nil {
			return err
		}
		return unpackTar(tar.NewReader(plain), dir)
	}
	return errors.New("it holds no .txz file")
}

func unpackTar(archive *tar.Reader, dir string) error {
	root, err := os.OpenRoot(dir) // no entry's name or link leads out of dir
	if err != nil {
		return err
	}
	defer root.Close()
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := unpackEntry(root, header, archive); err != nil {
			return fmt.Errorf("unpack %s: %w", header.Name, err)
		}
	}
}

func unpackEntry(root *os.Root, header *tar.Header, content io.Reader) error {
	name := filepath.Clean(header.Name)
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	switch header.Typeflag {
	case tar.TypeDir:
		return root.MkdirAll(name, 0o755)
	case tar.TypeSymlink:
		return root.Symlink(header.Linkname, name)
	case tar.TypeReg:
		file, err := root.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_EXCL, os.FileMode(header.Mode)&0o755)
		if err != nil {
			return err
		}
		_, err = io.Copy(file, content)
		return errors.Join(err, file.Close())
	default:
		return fmt.Errorf("an entry of kind %q is not expected", header.Typeflag)
	}
}
