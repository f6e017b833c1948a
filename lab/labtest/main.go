// Package labtest helps to test what changes a kernel. A package's TestMain
// calls Main, which runs the whole test binary again inside namespaces of its
// own, mapped to a range of user ids without any privilege on the host, as a
// lab's agent lives: what works there works in a sandbox.
//
//	func TestMain(m *testing.M) { labtest.Main(m) }
//	func TestPrivilegedPing(t *testing.T) { labtest.Privileged(t); … }
//
// Main fails the run when a test leaves behind open files, goroutines or
// network namespaces, or when the host has other links after it than before.
package labtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// inside is set in the environment of the run inside the sandbox.
const inside = "PODLAB_TEST_SANDBOX"

// The user ids of the sandbox on the host: a range that no user of a Debian
// machine has.
const (
	firstHostID = 1_000_000_000
	idCount     = 65_536
)

// Main is the body of a TestMain. It does not return.
func Main(m *testing.M) {
	switch {
	case os.Getenv(inside) != "":
		os.Exit(runInside(m))
	case os.Geteuid() != 0:
		// Pure tests run; Privileged fails the others.
		os.Exit(m.Run())
	default:
		os.Exit(runAgain())
	}
}

// runAgain runs this program with the same arguments as PID 1 of a sandbox.
func runAgain() int {
	before, err := hostLinks()
	if err != nil {
		return failed(err)
	}
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: firstHostID, Size: idCount}}
	// The go command's own log lies where the sandbox may not write.
	args := slices.DeleteFunc(slices.Clone(os.Args[1:]), func(a string) bool {
		return strings.HasPrefix(a, "-test.testlogfile=")
	})
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID |
			unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		UidMappings: ids, GidMappings: ids,
		GidMappingsEnableSetgroups: true,
		Credential:                 &syscall.Credential{Uid: 0, Gid: 0},
		Pdeathsig:                  syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		return failed(fmt.Errorf("cannot start the sandbox: %w", err))
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT)
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s)
		}
	}()
	err = cmd.Wait()
	signal.Stop(signals)
	close(signals)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return max(exit.ExitCode(), 1)
	}
	if err != nil {
		return failed(err)
	}
	after, err := hostLinks()
	if err != nil {
		return failed(err)
	}
	if !slices.Equal(before, after) {
		return failed(fmt.Errorf("the host's links changed: before %v, after %v", before, after))
	}
	return 0
}

// runInside runs the tests in the sandbox and looks for what they left.
func runInside(m *testing.M) int {
	if err := mountSystem(); err != nil {
		return failed(err)
	}
	before, err := openFiles()
	if err != nil {
		return failed(err)
	}
	code := m.Run()
	if code != 0 {
		return code
	}
	if err := leaks(before); err != nil {
		return failed(err)
	}
	return 0
}

// mountSystem gives the sandbox its own /proc, /sys and /run.
func mountSystem() error {
	mounts := []struct {
		source, target, kind string
		flags                uintptr
	}{
		{"none", "/", "", unix.MS_REC | unix.MS_PRIVATE},
		{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV},
	}
	for _, m := range mounts {
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("cannot mount %s in the test's sandbox: %w", m.target, err)
		}
	}
	return nil
}

func failed(err error) int {
	fmt.Fprintln(os.Stderr, "FAIL:", err)
	return 1
}

// hostLinks are the names of the links of the process's namespace.
func hostLinks() ([]string, error) {
	entries, err := os.ReadDir("/sys/class/net")
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

// Privileged fails the test when it does not run in a sandbox, which Main
// makes for root.
func Privileged(t testing.TB) {
	t.Helper()
	if os.Getenv(inside) == "" {
		t.Fatal("this test changes a kernel: run it as root, in a package whose TestMain calls labtest.Main")
	}
}
