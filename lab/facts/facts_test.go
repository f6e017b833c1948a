package facts

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"podlab/lab"
	"podlab/lab/agentapi"
)

// The topology of these tests, all made by the test, in namespaces of its own:
//
//	pod a (netns, lo up)
//	├── container web  (mount ns): tcp 0.0.0.0:8080, [::1]:8081, 127.0.0.1:9100
//	└── container side (mount ns): unix @side
//	pod b: another netns, nothing listens

// TestMain is also the program that runs in the containers.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "container" {
		if err := container(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

type process struct {
	cmd *exec.Cmd
	out *bufio.Reader
}

// start runs this program again as a container; netns 0 makes a new one.
func start(t *testing.T, joins int, listeners ...string) process {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root: it makes network namespaces")
	}
	args := append([]string{"container", fmt.Sprint(joins)}, listeners...)
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if joins == 0 {
		cmd.SysProcAttr.Unshareflags |= syscall.CLONE_NEWNET
	} else {
		cmd = exec.Command("nsenter", append([]string{"-t", fmt.Sprint(joins), "-n", "unshare", "-m", "/proc/self/exe"}, args...)...)
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Args = append(slices.Clone(cmd.Args[:len(cmd.Args)-len(args)-1]), append([]string{self}, args...)...)
	}
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe() // its end ends the container
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("container: %v", err)
		}
	})
	p := process{cmd: cmd, out: bufio.NewReader(stdout)}
	if line, err := p.out.ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("container said %q, %v", line, err)
	}
	return p
}

type fixed struct {
	pods  map[string]PodProcesses
	nodes map[string]int
	log   string
}

func (f fixed) PodProcesses() map[string]PodProcesses { return f.pods }
func (f fixed) NodeProcesses() map[string]int         { return f.nodes }
func (f fixed) OpenLog(p lab.TargetParts) (io.ReadCloser, error) {
	if p.Container != "web" {
		return nil, errors.New("no such container")
	}
	return io.NopCloser(strings.NewReader(f.log)), nil
}
func (f fixed) Run(ctx context.Context, _ lab.Target, command []string, stdout, stderr io.Writer) (int, error) {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// twoPods starts the topology above.
func twoPods(t *testing.T) (*Collector, fixed) {
	a := start(t, 0, "tcp4 0.0.0.0:8080", "tcp6 [::1]:8081", "tcp4 127.0.0.1:9100", "udp4 127.0.0.1:5353")
	side := start(t, a.cmd.Process.Pid, "unix @side")
	b := start(t, 0)
	f := fixed{
		pods: map[string]PodProcesses{
			"default/a": {Pause: a.cmd.Process.Pid, Containers: map[string]int{"web": a.cmd.Process.Pid, "side": side.cmd.Process.Pid, "gone": 0}},
			"default/b": {Pause: b.cmd.Process.Pid, Containers: map[string]int{"app": b.cmd.Process.Pid}},
		},
		nodes: map[string]int{"node1": os.Getpid()},
		log:   strings.Repeat("noise\n", 100_000) + "web.hello: hi\nlast\n",
	}
	state := lab.State{
		Spec: lab.DefaultLab().Spec,
		Pods: []lab.Pod{
			{Namespace: "default", Name: "a", IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}},
			{Namespace: "default", Name: "b"}, {Namespace: "default", Name: "pending"},
		},
	}
	return New(Deps{State: func() lab.State { return state }, Processes: f, Runner: f, Logs: f}), f
}

func TestPrivilegedFacts(t *testing.T) {
	c, f := twoPods(t)
	facts, err := c.Collect(t.Context(), agentapi.FactsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	a := facts.Pods["default/a"]
	web, side := a.Containers["web"], a.Containers["side"]
	if !web.Running || !side.Running || web.Namespaces["net"] == 0 || web.Namespaces["net"] != side.Namespaces["net"] || web.Namespaces["mnt"] == side.Namespaces["mnt"] {
		t.Errorf("namespaces of web %v and side %v: net should be one, mnt two", web.Namespaces, side.Namespaces)
	}
	if a.Containers["gone"].Running {
		t.Error("a container without a process runs")
	}
	if got := facts.Pods["default/b"].Containers["app"].Namespaces["net"]; got == web.Namespaces["net"] || got == 0 {
		t.Errorf("pod b is in network namespace %d, as pod a", got)
	}
	if !slices.Contains(web.Args, "container") {
		t.Errorf("args of web are %q", web.Args)
	}
	if n := facts.Nodes["node1"]; !n.Running || n.Namespaces["net"] == web.Namespaces["net"] {
		t.Errorf("node1 is %+v", n)
	}
	var got []string
	for _, s := range a.Sockets {
		got = append(got, fmt.Sprintf("%s %s %d %s %s", s.Proto, s.Addr, s.Port, s.Path, s.Container))
	}
	slices.Sort(got)
	want := []string{"tcp 0.0.0.0 8080  web", "tcp 127.0.0.1 9100  web", "tcp6 ::1 8081  web", "udp 127.0.0.1 5353  web", "unix invalid IP 0 @side side"}
	if !slices.Equal(got, want) {
		t.Errorf("sockets:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if len(facts.Pods["default/b"].Sockets) != 0 {
		t.Errorf("sockets of pod b: %v", facts.Pods["default/b"].Sockets)
	}
	if _, ok := facts.Pods["default/pending"]; !ok {
		t.Error("a pod without processes is not in the facts")
	}
	_ = f
}

func TestPrivilegedProbes(t *testing.T) {
	c, _ := twoPods(t)
	tests := []struct {
		name  string
		probe lab.Probe
		want  func(lab.ProbeResult) bool
	}{
		{"tcp open", lab.Probe{From: "a/side", TCP: &lab.TCPProbe{Addr: "127.0.0.1:9100"}}, func(r lab.ProbeResult) bool { return r.OK && r.Error == "" }},
		{"tcp v6", lab.Probe{From: "a", TCP: &lab.TCPProbe{Addr: "[::1]:8081"}}, func(r lab.ProbeResult) bool { return r.OK }},
		{"tcp to a pod's address", lab.Probe{From: "a", TCP: &lab.TCPProbe{Addr: "{ip4 a}:8080"}}, func(r lab.ProbeResult) bool { return r.OK }},
		{"tcp refused", lab.Probe{From: "a", TCP: &lab.TCPProbe{Addr: "127.0.0.1:81"}}, func(r lab.ProbeResult) bool { return !r.OK && r.Error == "connection refused" }},
		{"tcp from another pod", lab.Probe{From: "b", TCP: &lab.TCPProbe{Addr: "127.0.0.1:9100"}}, func(r lab.ProbeResult) bool { return !r.OK && r.Error == "connection refused" }},
		{"tcp without a route", lab.Probe{From: "b", TCP: &lab.TCPProbe{Addr: "192.0.2.1:80"}}, func(r lab.ProbeResult) bool { return r.Error == "network is unreachable" }},
		{"http", lab.Probe{From: "a/side", HTTP: &lab.HTTPProbe{URL: "http://127.0.0.1:8080/x"}}, func(r lab.ProbeResult) bool {
			return r.OK && r.Status == 200 && strings.HasPrefix(r.Body, "GET /x") && len(r.Body) == 4096 && r.Headers["X-Test"] == "1"
		}},
		{"http hangs", lab.Probe{From: "a", TimeoutMillis: 50, HTTP: &lab.HTTPProbe{URL: "http://127.0.0.1:9100/"}}, func(r lab.ProbeResult) bool { return r.Error == "timed out" }},
		{"ping", lab.Probe{From: "a", Ping: &lab.PingProbe{Addr: "127.0.0.1"}}, func(r lab.ProbeResult) bool { return r.OK }},
		{"ping v6", lab.Probe{From: "a", Ping: &lab.PingProbe{Addr: "::1"}}, func(r lab.ProbeResult) bool { return r.OK }},
		{"ping without a route", lab.Probe{From: "a", Ping: &lab.PingProbe{Addr: "192.0.2.1"}}, func(r lab.ProbeResult) bool { return r.Error == "network is unreachable" }},
		{"exec", lab.Probe{From: "a/web", Exec: &lab.ExecProbe{Command: []string{"sh", "-c", "yes | head -c 9000; echo no >&2; exit 3"}}}, func(r lab.ProbeResult) bool {
			return !r.OK && r.ExitCode == 3 && len(r.Stdout) == 4096 && r.Stderr == "no\n"
		}},
		{"exec hangs", lab.Probe{From: "a/web", TimeoutMillis: 50, Exec: &lab.ExecProbe{Command: []string{"cat", "/dev/zero"}}}, func(r lab.ProbeResult) bool { return r.Error == "timed out" }},
		{"log", lab.Probe{From: "a/web", Log: &lab.LogProbe{Match: `^web\.`}}, func(r lab.ProbeResult) bool { return r.OK && r.Stdout == "web.hello: hi\n" }},
		{"log without", lab.Probe{From: "a/web", Log: &lab.LogProbe{Match: `^never`}}, func(r lab.ProbeResult) bool { return !r.OK && r.Skipped == "" }},
		{"no pod", lab.Probe{From: "c", TCP: &lab.TCPProbe{Addr: "127.0.0.1:80"}}, func(r lab.ProbeResult) bool { return r.Skipped == "there is no pod default/c" }},
		{"no log", lab.Probe{From: "c/web", Log: &lab.LogProbe{}}, func(r lab.ProbeResult) bool { return r.Skipped == "there is no pod default/c" }},
		{"not started", lab.Probe{From: "pending", Ping: &lab.PingProbe{Addr: "127.0.0.1"}}, func(r lab.ProbeResult) bool { return r.Skipped == "pod default/pending is not running" }},
		{"no container", lab.Probe{From: "a/gone", TCP: &lab.TCPProbe{Addr: "127.0.0.1:80"}}, func(r lab.ProbeResult) bool { return strings.Contains(r.Skipped, "container gone") }},
		{"no address", lab.Probe{From: "a", TCP: &lab.TCPProbe{Addr: "[{ip6 a}]:80"}}, func(r lab.ProbeResult) bool { return r.Skipped == "a has no IPv6 address" }},
		{"no node", lab.Probe{From: "node:node9", TCP: &lab.TCPProbe{Addr: "127.0.0.1:80"}}, func(r lab.ProbeResult) bool { return r.Skipped != "" }},
	}
	request := agentapi.FactsRequest{Probes: map[string]lab.Probe{}}
	for _, tt := range tests {
		request.Probes[tt.name] = tt.probe
	}
	before, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	facts, err := c.Collect(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		if r := facts.Probes[tt.name]; !tt.want(r) {
			r.Body = r.Body[:min(len(r.Body), 80)]
			r.Stdout = r.Stdout[:min(len(r.Stdout), 80)]
			t.Errorf("%s: %+v", tt.name, r)
		}
	}
	if after, err := os.Readlink("/proc/thread-self/ns/net"); err != nil || after != before {
		t.Errorf("the test's thread was in %s and is in %s", before, after)
	}
}

func TestRequestBounds(t *testing.T) {
	c := New(Deps{State: func() lab.State { return lab.State{} }, Processes: fixed{}, Runner: fixed{}, Logs: fixed{}})
	many := map[string]lab.Probe{}
	for i := range lab.MaxProbes + 1 {
		many[fmt.Sprint(i)] = lab.Probe{From: "a", TCP: &lab.TCPProbe{Addr: "127.0.0.1:80"}}
	}
	for name, probes := range map[string]map[string]lab.Probe{
		"too many":        many,
		"nothing to try":  {"x": {From: "a"}},
		"two things":      {"x": {From: "a", Ping: &lab.PingProbe{Addr: "127.0.0.1"}, TCP: &lab.TCPProbe{Addr: "127.0.0.1:80"}}},
		"a name for tcp":  {"x": {From: "a", TCP: &lab.TCPProbe{Addr: "web:80"}}},
		"too long a time": {"x": {From: "a", TimeoutMillis: 60_000, Ping: &lab.PingProbe{Addr: "127.0.0.1"}}},
		"a file URL":      {"x": {From: "a", HTTP: &lab.HTTPProbe{URL: "file:///etc/passwd"}}},
		"a bad place":     {"x": {From: "a/b/c/d", Ping: &lab.PingProbe{Addr: "127.0.0.1"}}},
		"a bad pattern":   {"x": {From: "a/b", Log: &lab.LogProbe{Match: "("}}},
	} {
		if _, err := c.Collect(t.Context(), agentapi.FactsRequest{Probes: probes}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestHeadAndTail(t *testing.T) {
	h := &head{}
	for range 10 {
		if n, err := h.Write(bytes.Repeat([]byte("x"), 1000)); n != 1000 || err != nil {
			t.Fatal(n, err)
		}
	}
	if len(h.String()) != maxText {
		t.Errorf("kept %d bytes", len(h.String()))
	}
	got, err := tail(t.Context(), strings.NewReader(strings.Repeat("a line\n", 50_000)), 100)
	if err != nil || len(got) > 100 || !bytes.HasPrefix(got, []byte("a line\n")) {
		t.Errorf("tail is %q, %v", got, err)
	}
}
