// Package runtimetest runs tests of what starts real containers: in a sandbox
// like a lab's, with the lab's root file system.
package runtimetest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// inside is set in the environment of the run inside the sandbox.
const inside = "PODLAB_RUNTIME_TEST"

// Folders of the sandbox.
const (
	scratch = "/mnt"
	// Hidden stands for the agent's own folder, which no container may see.
	Hidden = "/run/podlab"
)

// Main is the body of a TestMain: for root it runs the tests again as PID 1 of
// namespaces of their own. It does not return.
func Main(m *testing.M) {
	switch {
	case os.Getenv(inside) != "":
		os.Exit(runInside(m))
	case os.Geteuid() != 0:
		os.Exit(m.Run()) // Runtime tests fail, saying why
	}
	// The ids are the host's own: the root file system is not mapped here.
	ids := []syscall.SysProcIDMap{{Size: 65536}}
	args := slices.DeleteFunc(slices.Clone(os.Args[1:]), func(a string) bool { return strings.HasPrefix(a, "-test.testlogfile=") })
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC |
			unix.CLONE_NEWUTS,
		UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true,
		Pdeathsig: syscall.SIGKILL,
	}
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		os.Exit(max(exit.ExitCode(), 1))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "FAIL:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func runInside(m *testing.M) int {
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "FAIL:", err)
		return 1
	}
	if code := m.Run(); code != 0 {
		return code
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, "FAIL: goroutines are left:", err)
		return 1
	}
	return 0
}

// prepare mounts what a sandbox has.
func prepare() error {
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
	}{
		{"none", "/", "", unix.MS_REC | unix.MS_PRIVATE},
		{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"tmpfs", "/run", "tmpfs", 0},
		{"tmpfs", scratch, "tmpfs", 0},
	} {
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("cannot mount %s: %w", m.target, err)
		}
	}
	if err := os.Mkdir(Hidden, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", Hidden, "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("cannot mount %s: %w", Hidden, err)
	}
	return os.WriteFile(Hidden+"/secret", []byte("journal"), 0o600)
}

// Data is where `make rootfs` and `make images` put their things.
func Data() string {
	if data := os.Getenv("PODLAB_DATA"); data != "" {
		return data
	}
	return "/var/lib/podlab"
}

// Rootfs is the lab's root file system. The test fails where it is missing.
func Rootfs(t testing.TB) string {
	t.Helper()
	if os.Getenv(inside) == "" {
		t.Fatal("this test makes namespaces: run it as root")
	}
	dir, err := filepath.EvalSymlinks(filepath.Join(Data(), "rootfs", "current"))
	if err != nil {
		t.Fatalf("the lab's root file system is missing (make rootfs): %v", err)
	}
	return dir
}

// Images is the folder of image layers. The test fails where it is missing.
func Images(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(Data(), "images")
	if _, err := os.Stat(dir); err != nil {
		t.Fatalf("the images are missing (make images): %v", err)
	}
	return dir
}

// Scratch is an empty folder for a lab's writable layers.
func Scratch(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(scratch, "lab")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
