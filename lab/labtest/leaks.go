package labtest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.uber.org/goleak"
)

// openFiles lists what each of the process's descriptors is.
func openFiles() (map[string]string, error) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	for _, e := range entries {
		if target, err := os.Readlink(filepath.Join("/proc/self/fd", e.Name())); err == nil {
			files[e.Name()] = target
		}
	}
	return files, nil
}

// leaks says what the tests left: goroutines, open files, namespaces.
func leaks(before map[string]string) error {
	if err := goleak.Find(); err != nil {
		return fmt.Errorf("goroutines are left: %w", err)
	}
	after, err := openFiles()
	if err != nil {
		return err
	}
	// Package netns keeps the process's own namespace open, once.
	home, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return err
	}
	homes := 0
	var left []string
	for fd, target := range after {
		switch {
		case before[fd] == target, strings.HasPrefix(target, "anon_inode:"), strings.HasPrefix(target, "pipe:"), strings.HasPrefix(target, "/proc/"):
			// The Go runtime's poller and its wake-up.
		case target == home && homes == 0:
			homes++
		default:
			left = append(left, fd+" -> "+target)
		}
	}
	if len(left) > 0 {
		slices.Sort(left)
		return fmt.Errorf("files are left open: %s", strings.Join(left, ", "))
	}
	return nil
}
