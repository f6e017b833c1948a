package runtime

import (
	"bufio"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"podlab/lab/runtime/runtimetest"
)

func TestPrivilegedContainerRuns(t *testing.T) {
	r := start(t)
	p := startPod(t, r, "pod-a")
	c, err := r.StartContainer(t.Context(), p, shell(r, "app", `hostname; id -u; cat /proc/1/comm; echo err >&2; cat /proc/mounts; exit 7`), nil)
	if err != nil {
		t.Fatal(err)
	}
	got := output(t, c)
	if want := "pod-a\n0\nsh\n"; !strings.HasPrefix(got, want) {
		t.Errorf("output\n%swant it to begin with\n%s", got, want)
	}
	if code := c.Wait(); code != 7 {
		t.Errorf("exit code %d, want 7", code)
	}
}

func TestPrivilegedExecTerminal(t *testing.T) {
	r := start(t)
	p, err := r.Exec(t.Context(), Ref{Node: "node1"}, ExecSpec{Args: []string{"sh", "-c", "stty size; tty; read x; stty size; hostname; exit 3"}, TTY: true, Cols: 100, Rows: 30})
	if err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(p.PTY())
	line := func() string {
		s, err := in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(s)
	}
	if got := line(); got != "30 100" {
		t.Errorf("size %q, want 30 100", got)
	}
	if got := line(); got != "/dev/pts/0" {
		t.Errorf("tty %q", got)
	}
	if err := p.Resize(120, 40); err != nil {
		t.Fatal(err)
	}
	if _, err := p.PTY().WriteString("x\n"); err != nil {
		t.Fatal(err)
	}
	if got := line(); got != "x" {
		t.Errorf("echo %q", got)
	}
	if got := line(); got != "40 120" {
		t.Errorf("size after resize %q, want 40 120", got)
	}
	if got := line(); got != "node1" {
		t.Errorf("hostname %q", got)
	}
	if code := p.Wait(); code != 3 {
		t.Errorf("exit code %d, want 3", code)
	}
	if err := p.Kill(); err != nil {
		t.Error(err)
	}
}

func TestPrivilegedKillEndsTheSession(t *testing.T) {
	r := start(t)
	p, err := r.Exec(t.Context(), Ref{Node: "node1"}, ExecSpec{Args: []string{"bash", "-c", "trap '' HUP; sleep 1000 & trap '' TERM; echo ready; read x"}, TTY: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(p.PTY()).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	pids, err := sessionPIDs(p.PID())
	if err != nil || len(pids) != 2 {
		t.Fatalf("processes of the session %v, %v; want 2", pids, err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if pids, err = sessionPIDs(p.PID()); err != nil || len(pids) != 0 {
		t.Errorf("processes of the session after Kill: %v, %v", pids, err)
	}
}

// A process number that belongs to somebody else by now is left alone.
func TestPrivilegedKillSparesASuccessor(t *testing.T) {
	r := start(t)
	p, err := r.Exec(t.Context(), Ref{Node: "node1"}, ExecSpec{Args: []string{"sleep", "1000"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := killSession(p.PID(), true); err != nil {
		t.Error(err)
	}
	if !p.Running() {
		t.Error("the session of a successor was killed")
	}
	if err := p.Kill(); err != nil {
		t.Error(err)
	}
}

func TestPrivilegedExecPipes(t *testing.T) {
	r := start(t)
	pod := startPod(t, r, "pod-a")
	if _, err := r.StartContainer(t.Context(), pod, shell(r, "app", "exec sleep 1000"), nil); err != nil {
		t.Fatal(err)
	}
	p, err := r.Exec(t.Context(), Ref{Namespace: "default", Pod: "pod-a", Container: "app"}, ExecSpec{Args: []string{"sh", "-c", "cat; echo bad >&2"}, Stdin: true, Stdout: true, Stderr: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Stdin.WriteString("hello"); err != nil {
		t.Fatal(err)
	}
	p.Stdin.Close()
	out, err := io.ReadAll(p.Stdout)
	if err != nil || string(out) != "hello" {
		t.Errorf("stdout %q, %v", out, err)
	}
	if out, err = io.ReadAll(p.Stderr); err != nil || string(out) != "bad\n" {
		t.Errorf("stderr %q, %v", out, err)
	}
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if err := p.Kill(); err != nil {
		t.Error(err)
	}
}

func TestPrivilegedStartErrorsNameTheStep(t *testing.T) {
	r := start(t)
	pod := startPod(t, r, "pod-a")
	spec := shell(r, "app", "")
	spec.Args = []string{"no-such-program"}
	_, err := r.StartContainer(t.Context(), pod, spec, nil)
	var step *StepError
	if !errors.As(err, &step) || !step.IsExec() || err.Error() != `cannot run "no-such-program": no such file or directory` {
		t.Errorf("error %v", err)
	}
	spec.Mounts = []Mount{{Source: "/no/such", Target: "/data"}}
	_, err = r.StartContainer(t.Context(), pod, spec, nil)
	if !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), "bind /no/such") {
		t.Errorf("error %v", err)
	}
	if n := len(r.containers); n != 0 {
		t.Errorf("%d containers are left", n)
	}
	if _, err := os.Stat(runtimetest.Hidden + "/secret"); err != nil {
		t.Errorf("the hidden folder is gone from the agent: %v", err)
	}
}
