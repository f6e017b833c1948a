package runtime

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"podlab/lab/runtime/runtimetest"
)

func TestMain(m *testing.M) { runtimetest.Main(m) }

// start gives a Runtime with one node, node1, in its own network namespace.
func start(t testing.TB) *Runtime {
	t.Helper()
	r, err := Start(Options{Root: runtimetest.Rootfs(t), Scratch: runtimetest.Scratch(t), Hidden: []string{runtimetest.Hidden}})
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
