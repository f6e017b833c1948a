package kubelet_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

func named(pod string) types.NamespacedName {
	return types.NamespacedName{Namespace: "default", Name: pod}
}

// waiter collects output and tells when it contains what is waited for.
type waiter struct {
	locked
	changed chan struct{}
}

func newWaiter() *waiter { return &waiter{changed: make(chan struct{}, 1)} }

func (w *waiter) Write(b []byte) (int, error) {
	n, err := w.locked.Write(b)
	select {
	case w.changed <- struct{}{}:
	default:
	}
	return n, err
}

func (w *waiter) wait(t *testing.T, want string) {
	t.Helper()
	timeout := time.NewTimer(10 * time.Second)
	defer timeout.Stop()
	for !strings.Contains(w.String(), want) {
		select {
		case <-w.changed:
		case <-timeout.C:
			t.Fatalf("no %q in %q", want, w.String())
		}
	}
}

func TestPrivilegedExec(t *testing.T) {
	c := newCluster(t)
	c.apply("metadata: {name: p}\nspec: {containers: [{name: a, image: debian, command: [sleep, infinity]}]}\n")
	c.until("p", "ready", ready)
	exec := func(cmd []string, in io.Reader, tty bool, sizes <-chan remotecommand.TerminalSize) (string, error) {
		out := newWaiter()
		err := c.kubelets.Exec(t.Context(), named("p"), "a", cmd, in, out, nil, tty, sizes)
		return out.String(), err
	}
	if out, err := exec([]string{"cat"}, strings.NewReader("through\n"), false, nil); out != "through\n" || err != nil {
		t.Errorf("cat: %q, %v", out, err)
	}
	_, err := exec([]string{"sh", "-c", "exit 42"}, nil, false, nil)
	var exit utilexec.ExitError
	if !errors.As(err, &exit) || exit.ExitStatus() != 42 {
		t.Errorf("exit 42: %v", err)
	}
	if _, err := exec([]string{"nothing-like-this"}, nil, false, nil); err == nil || !strings.Contains(err.Error(), `cannot run "nothing-like-this"`) {
		t.Errorf("a program that is not there: %v", err)
	}
	// What a command leaves behind does not hold the stream open.
	if out, err := exec([]string{"sh", "-c", "sleep 1000 & echo done"}, nil, false, nil); out != "done\n" || err != nil {
		t.Errorf("a command that leaves a process: %q, %v", out, err)
	}
	sizes := make(chan remotecommand.TerminalSize, 1)
	sizes <- remotecommand.TerminalSize{Width: 111, Height: 22}
	if out, err := exec([]string{"sh", "-c", "while [ \"$(stty size)\" != '22 111' ]; do sleep 0.01; done; tty"}, nil, true, sizes); !strings.Contains(out, "/dev/pts/") || err != nil {
		t.Errorf("terminal: %q, %v", out, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	out := newWaiter()
	ended := make(chan error, 1)
	go func() {
		ended <- c.kubelets.Exec(ctx, named("p"), "a", []string{"sh", "-c", "echo up; exec sleep 7777"}, nil, out, nil, true, nil)
	}()
	out.wait(t, "up")
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("a command whose client left: %v", err)
	}
	if got := c.run("p", "a", "sh", "-c", "ps -eo args | grep -c '[s]leep 7777' || true"); got != "0\n" {
		t.Errorf("processes of a client that left: %s", got)
	}
}

func TestPrivilegedAttach(t *testing.T) {
	c := newCluster(t)
	c.apply("metadata: {name: p}\nspec: {containers: [{name: a, image: debian, stdin: true, tty: true, command: [sh, -c, 'while read x; do echo got-$x; done']}]}\n")
	c.until("p", "ready", ready)
	in, typed := io.Pipe()
	out := newWaiter()
	ended := make(chan error, 1)
	go func() { ended <- c.kubelets.Attach(t.Context(), named("p"), "a", in, out, nil, true, nil) }()
	if _, err := typed.Write([]byte("hello\n")); err != nil {
		t.Fatal(err)
	}
	out.wait(t, "got-hello")
	c.delete("p")
	if err := <-ended; err != nil {
		t.Errorf("attach: %v", err)
	}
	_ = typed.Close()
	c.gone("p")
}

func TestPrivilegedPortForward(t *testing.T) {
	c := newCluster(t)
	c.apply("metadata: {name: p}\nspec: {containers: [{name: a, image: agnhost, args: [netexec, --http-port=8080, --udp-port=-1]}]}\n")
	c.until("p", "ready", ready)
	c.run("p", "a", "curl", "-sS", "--retry", "50", "--retry-delay", "0", "--retry-connrefused", "--retry-max-time", "10", "http://127.0.0.1:8080/")
	ours, theirs := net.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- c.kubelets.PortForward(t.Context(), named("p"), 8080, theirs) }()
	if _, err := ours.Write([]byte("GET /hostname HTTP/1.0\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(ours)
	if err != nil || !bytes.HasSuffix(answer, []byte("\r\n\r\np")) {
		t.Errorf("answer %q, %v", answer, err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	ours, theirs = net.Pipe()
	defer ours.Close()
	if err := c.kubelets.PortForward(t.Context(), named("p"), 9, theirs); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("a closed port: %v", err)
	}
}
