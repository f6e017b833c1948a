package runtime

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// inside is set in the environment of the run inside the test's sandbox.
const inside = "PODLAB_RUNTIME_TEST"

// TestMain runs the tests again as PID 1 of namespaces of their own, where the
// agent's place in a sandbox is imitated: a scratch tmpfs, a folder that must
// stay hidden, the lab's root file system.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv(inside) != "":
		if err := prepare(); err != nil {
			fmt.Fprintln(os.Stderr, "FAIL:", err)
			os.Exit(1)
		}
		code := m.Run()
		if err := goleak.Find(); code == 0 && err != nil {
			fmt.Fprintln(os.Stderr, "FAIL: goroutines are left:", err)
			code = 1
		}
		os.Exit(code)
	case os.Geteuid() != 0:
		os.Exit(m.Run())
	}
	ids := []syscall.SysProcIDMap{{Size: 65536}}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
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
}

const (
	testScratch = "/mnt"
	testHidden  = "/run/podlab"
)

func prepare() error {
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
	}{
		{"none", "/", "", unix.MS_REC | unix.MS_PRIVATE},
		{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"tmpfs", "/run", "tmpfs", 0},
		{"tmpfs", testScratch, "tmpfs", 0},
	} {
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("cannot mount %s: %w", m.target, err)
		}
	}
	if err := os.Mkdir(testHidden, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", testHidden, "tmpfs", 0, ""); err != nil {
		return err
	}
	return os.WriteFile(testHidden+"/secret", []byte("journal"), 0o600)
}

// rootfs is the lab's root file system: `make rootfs` makes it.
func rootfs(t testing.TB) string {
	t.Helper()
	data := os.Getenv("PODLAB_DATA")
	if data == "" {
		data = "/var/lib/podlab"
	}
	dir, err := filepath.EvalSymlinks(filepath.Join(data, "rootfs", "current"))
	if err != nil {
		t.Fatalf("the lab's root file system is missing (make rootfs): %v", err)
	}
	return dir
}

// start gives a Runtime with one node, node1, in its own network namespace.
func start(t testing.TB) *Runtime {
	t.Helper()
	if os.Getenv(inside) == "" {
		t.Fatal("this test makes namespaces: run it as root")
	}
	scratch, err := os.MkdirTemp(testScratch, "lab")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(scratch, 0o755); err != nil {
		t.Fatal(err)
	}
	r, err := Start(Options{Root: rootfs(t), Scratch: scratch, Hidden: []string{testHidden}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	netns := newNetNS(t)
	if _, err := r.StartNode(t.Context(), NodeSpec{Name: "node1", NetNS: netns, Hosts: "127.0.0.1 localhost\n", ResolvConf: "nameserver 10.96.0.10\n"}); err != nil {
		t.Fatal(err)
	}
	return r
}

// newNetNS makes an empty network namespace.
func newNetNS(t testing.TB) *os.File {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	t.Cleanup(func() { f.Close() })
	return f
}

// startPod starts a pod with no container on node1.
func startPod(t testing.TB, r *Runtime, name string, change ...func(*PodSpec)) *Pod {
	t.Helper()
	spec := PodSpec{PodKey: PodKey{"default", name}, UID: "uid-" + name, Node: "node1", Hostname: name, NetNS: newNetNS(t)}
	for _, f := range change {
		f(&spec)
	}
	p, err := r.StartPod(t.Context(), spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// shell is the spec of a container that runs a shell script.
func shell(r *Runtime, name, script string) ContainerSpec {
	caps, _ := Capabilities(nil, nil)
	return ContainerSpec{
		Name: name, Args: []string{"sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin:/usr/sbin:/sbin"}, Caps: caps,
		NoNewPrivs: true, LogPath: r.path("logs", name, "0.log"),
	}
}

// output waits for a container's end and returns what it wrote.
func output(t testing.TB, c *Container) string {
	t.Helper()
	<-c.Done()
	var b strings.Builder
	if err := c.Log.Read(t.Context(), LogOptions{Tail: -1}, &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
