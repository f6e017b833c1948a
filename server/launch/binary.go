package launch

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

const binaryPrefix = "podlab-"

// keepBinary copies the program into dir under a name that tells its content,
// so that labs keep theirs when the server's is replaced, and all labs of one
// version share its pages in memory. It returns the base name.
func keepBinary(dir, program string) (string, error) {
	if program == "" {
		program = "/proc/self/exe" // the program that runs, even if its file was replaced
	}
	src, err := os.Open(program)
	if err != nil {
		return "", fmt.Errorf("cannot read the server's program: %w", err)
	}
	defer src.Close()
	h := sha256.New()
	if _, err := io.Copy(h, src); err != nil {
		return "", fmt.Errorf("cannot read the server's program: %w", err)
	}
	name := binaryPrefix + hex.EncodeToString(h.Sum(nil)[:8])
	dst := filepath.Join(dir, name)
	if _, err := os.Stat(dst); err == nil {
		return name, nil
	}
	if _, err := src.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	tmp, err := os.CreateTemp(dir, ".new-")
	if err != nil {
		return "", fmt.Errorf("cannot keep a copy of the server's program: %w", err)
	}
	_, err = io.Copy(tmp, src)
	err = errors.Join(err, tmp.Chmod(0o755), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), dst)
	}
	if err != nil {
		os.Remove(tmp.Name())
		return "", fmt.Errorf("cannot keep a copy of the server's program: %w", err)
	}
	return name, nil
}

// dropBinaries removes copies that no lab uses.
func dropBinaries(dir string, used map[string]bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		old := strings.HasPrefix(e.Name(), binaryPrefix) || strings.HasPrefix(e.Name(), ".new-")
		if old && !used[e.Name()] {
			errs = append(errs, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}
