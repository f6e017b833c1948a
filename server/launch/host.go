package launch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// What follows is for doctor: the same findings and attempts that a Launcher
// makes, with nothing kept.

// FindRuntime returns the path of the OCI runtime that a Launcher would use.
func FindRuntime(name string) (string, error) {
	r, err := findRuntime(name)
	return r.path, err
}

// Cgroups says how a host has its cgroups.
type Cgroups struct {
	// Mode is unified, hybrid or legacy.
	Mode string
	// Controllers are those of memory, pids and cpu that are to be had.
	Controllers []string
}

// FindCgroups reads the host's cgroups and tries them: it makes a group with
// limits in each hierarchy and removes it again.
func FindCgroups() (Cgroups, error) {
	hs, mode, err := findHierarchies()
	if err != nil {
		return Cgroups{Mode: string(mode)}, err
	}
	c := Cgroups{Mode: string(mode)}
	for _, h := range hs {
		if len(h.limits()) == 0 {
			continue
		}
		name := fmt.Sprintf("podlab-doctor-%d", os.Getpid())
		if err := tryGroup(h, name); err != nil {
			return c, err
		}
		c.Controllers = append(c.Controllers, h.limits()...)
	}
	slices.Sort(c.Controllers)
	return c, nil
}

func tryGroup(h hierarchy, name string) error {
	all := labCgroup{Dir: filepath.Join(h.Parent, name)}
	g := labCgroup{Dir: filepath.Join(all.Dir, "try"), V2: h.V2, Controllers: h.limits()}
	err := h.prepare(name)
	if err == nil {
		err = g.make(DefaultLimits())
	}
	return errors.Join(err, all.remove())
}

// MemoryLimit is what the server's own cgroup may use, labs included.
func MemoryLimit() (bytes int64, limited bool) {
	hs, _, err := findHierarchies()
	if err != nil {
		return 0, false
	}
	for _, h := range hs {
		if !slices.Contains(h.Controllers, "memory") {
			continue
		}
		file := "memory.limit_in_bytes"
		if h.V2 {
			file = "memory.max"
		}
		b, err := os.ReadFile(filepath.Join(h.Parent, file))
		if err != nil {
			return 0, false // the root group has no limit, and no file
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		// v1 says "none" by the largest number of whole pages.
		return n, err == nil && n < 1<<60
	}
	return 0, false
}

// TryIDMap mounts a directory with its ids shifted, attached nowhere.
func TryIDMap(dir string) error {
	users, err := newUserNamespace(FirstUID)
	if err != nil {
		return err
	}
	defer users.Close()
	fd, err := openTree(dir, users)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}
