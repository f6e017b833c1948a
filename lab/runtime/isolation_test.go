package runtime

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"podlab/lab/runtime/runtimetest"
)

// sh runs a script as root in a place and returns what it prints.
func sh(t *testing.T, r *Runtime, ref Ref, script string) string {
	t.Helper()
	p, err := r.Exec(t.Context(), ref, ExecSpec{Args: []string{"bash", "-c", "exec 2>&1; " + script}, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(p.Stdout)
	if err != nil {
		t.Fatal(err)
	}
	p.Wait()
	if err := p.Kill(); err != nil {
		t.Error(err)
	}
	return string(out)
}

// From a root shell on a node or in a pod nothing is seen of the agent, of its
// folder, or of what other containers have written.
func TestPrivilegedNothingOfTheAgentIsSeen(t *testing.T) {
	r := start(t)
	if _, err := r.StartNode(t.Context(), NodeSpec{Name: "node2", NetNS: newNetNS(t)}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"pod-a", "pod-b"} {
		pod := startPod(t, r, name)
		if _, err := r.StartContainer(t.Context(), pod, shell(r, name, "echo secret-of-"+name+" > /root/mine; exec sleep 1000"), nil); err != nil {
			t.Fatal(err)
		}
	}
	other := startPod(t, r, "pod-c", func(s *PodSpec) { s.Node = "node2" })
	if _, err := r.StartContainer(t.Context(), other, shell(r, "pod-c", "exec sleep 4444"), nil); err != nil {
		t.Fatal(err)
	}
	node, pod := Ref{Node: "node1"}, Ref{Namespace: "default", Pod: "pod-a", Container: "pod-a"}
	self := strconv.Itoa(os.Getpid()) // 1: the agent's place
	if self != "1" {
		t.Fatalf("the test is process %s, not the agent's 1", self)
	}
	for _, tt := range []struct {
		what   string
		ref    Ref
		script string
		want   string // all that may be printed; a leading ! is what may not
	}{
		{"first process of a node", node, "cat /proc/1/comm", "pause\n"},
		{"first process of a pod", pod, "cat /proc/1/comm", "sleep\n"},
		{"spawner from a node", node, "ps -eo comm", "!spawn"},
		{"test from a node", node, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '", "!test"},
		{"pods of the node from it", node, "ps -eo args | grep -c '[s]leep 1000'", "2\n"},
		{"another node's pods", node, "ps -eo args | grep -c '[s]leep 4444'", "0\n"},
		{"another pod's processes", pod, "ps -eo args | grep -c '[s]leep'", "1\n"},
		{"agent's folder from a node", node, "cat " + runtimetest.Hidden + "/secret", "!journal"},
		{"agent's folder through any process", node, "cat /proc/[0-9]*/root" + runtimetest.Hidden + "/secret", "!journal"},
		{"agent's folder from a pod", pod, "cat " + runtimetest.Hidden + "/secret /proc/[0-9]*/root" + runtimetest.Hidden + "/secret", "!journal"},
		{"scratch from a node", node, "ls -A " + r.opts.Scratch, "!pods"},
		{"scratch through the pauses", node, "for p in /proc/[0-9]*; do [ $(cat $p/comm) = pause ] && ls -A $p/root" + r.opts.Scratch + "; done; true", "!pods"},
		{"another pod's files", pod, "find / -xdev -name mine | xargs cat", "secret-of-pod-a\n"},
		{"descriptors", node, "ls -l /proc/1/fd | wc -l", "1\n"},
		{"descriptors of a shell", pod, "ls /proc/self/fd | tr '\\n' ' '", "0 1 2 3 "}, // 3 is ls's own
		{"capabilities of a pod", pod, "grep CapEff /proc/self/status", "CapEff:\t00000000a80425fb\n"},
		{"mount in a pod", pod, "mount -t tmpfs x /mnt && echo mounted", "!mounted"},
		{"device nodes in a pod", pod, "mknod /tmp/sda b 8 0 && head -c1 /tmp/sda && echo opened", "!opened"},
		{"sysctl of the kernel in a pod", pod, "echo 1 > /proc/sys/kernel/panic && echo written", "!written"},
		{"sysrq", node, "echo h > /proc/sysrq-trigger && echo written", "!written"},
		{"kernel modules", node, "grep Mod /proc/self/status; insmod /etc/hostname && echo loaded", "!loaded"},
		{"host's root through a device", node, "mknod /tmp/vda b 254 0 && head -c1 /tmp/vda && echo opened", "!opened"},
	} {
		got := sh(t, r, tt.ref, tt.script)
		if not, ok := strings.CutPrefix(tt.want, "!"); ok && strings.Contains(got, not) || !ok && got != tt.want {
			t.Errorf("%s: %q, want %q", tt.what, got, tt.want)
		}
	}
}

// What a process is between clone and execve is visible on its node for a
// moment; it must not be a way to the agent's folder.
func TestPrivilegedNothingIsSeenWhileContainersStart(t *testing.T) {
	r := start(t)
	pod := startPod(t, r, "pod-a")
	spy, err := r.Exec(t.Context(), Ref{Node: "node1"}, ExecSpec{
		Args:   []string{"bash", "-c", "trap 'echo looked $n; exit' TERM; n=0; echo ready; while :; do for p in /proc/[0-9]*; do if [ -e $p/root" + runtimetest.Hidden + "/secret ]; then echo SEEN; fi; done; n=$((n+1)); done"},
		Stdout: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := spy.Stdout.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		c, err := r.StartContainer(t.Context(), pod, shell(r, fmt.Sprint("c", i), "exit 0"), nil)
		if err != nil {
			t.Fatal(err)
		}
		<-c.Done()
		r.RemoveContainer(c)
	}
	if err := spy.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(spy.Stdout)
	if err != nil {
		t.Fatal(err)
	}
	if err := spy.Kill(); err != nil {
		t.Error(err)
	}
	if bytes.Contains(out, []byte("SEEN")) || !bytes.Contains(out, []byte("looked")) {
		t.Errorf("the spy says %q", out)
	}
}

// Learners make namespaces by hand on a node, which mounts a sysfs of its own.
func TestPrivilegedIPNetnsOnANode(t *testing.T) {
	r := start(t)
	node := Ref{Node: "node1"}
	if got := sh(t, r, node, "ip netns add blue && ip netns exec blue sh -c 'ip -br link; ls /sys/class/net' && ip netns"); !strings.Contains(got, "lo") || !strings.HasSuffix(got, "lo\nblue\n") {
		t.Errorf("ip netns on a node: %s", got)
	}
	if got := sh(t, r, node, "ip netns exec blue ip link add v0 type veth peer name v1 && ip netns exec blue ip -br link | wc -l; nft list ruleset; sysctl -n net.ipv4.ip_forward"); !strings.HasPrefix(got, "3\n") {
		t.Errorf("links in a namespace made by hand: %s", got)
	}
}

// A pod's namespace has a name on its node for as long as the pod is there.
func TestPrivilegedPodNetnsOnItsNode(t *testing.T) {
	r := start(t)
	pod := startPod(t, r, "pod-a")
	node := Ref{Node: "node1"}
	want, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pod.Process().PID()))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.ShowNetns(pod, "cni-a"); err != nil {
		t.Fatal(err)
	}
	if got := sh(t, r, node, "ip netns add blue; ip netns exec cni-a readlink /proc/self/ns/net; ip netns | sort"); got != want+"\nblue\ncni-a\n" {
		t.Errorf("namespaces of the node: %q, want %s", got, want)
	}
	if err := r.HideNetns(pod, "cni-a"); err != nil {
		t.Fatal(err)
	}
	if got := sh(t, r, node, "ip netns; grep -c netns/cni-a /proc/self/mountinfo"); got != "blue\n0\n" {
		t.Errorf("namespaces after the pod: %q", got)
	}
}

// The spawner is replaced when it is killed, as the kernel's OOM killer might.
func TestPrivilegedSpawnerComesBack(t *testing.T) {
	r := start(t)
	pod := startPod(t, r, "pod-a")
	killed := 0
	for _, pid := range spawnPIDs(t) {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		killed++
	}
	if killed != 1 {
		t.Fatalf("killed %d spawners, want 1", killed)
	}
	c, err := r.StartContainer(t.Context(), pod, shell(r, "app", "echo back"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := output(t, c); got != "back\n" {
		t.Errorf("output %q", got)
	}
}

// spawnPIDs are the serving spawners that are children of this process.
func spawnPIDs(t *testing.T) []int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var out []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if comm, err := os.ReadFile("/proc/" + e.Name() + "/comm"); err == nil && string(comm) == "spawn\n" {
			out = append(out, pid)
		}
	}
	return out
}
