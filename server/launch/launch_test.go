package launch

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"podlab/lab/agentapi"
)

// TestMain makes this binary the agent of the sandboxes that it starts: the
// launcher binds the running program into each as /usr/bin/podlab.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "agent" {
		standIn()
	}
	if len(os.Args) > 1 && os.Args[1] == "doomed-server" {
		doomedServer(os.Args[2:])
	}
	os.Exit(m.Run())
}

// standIn is PID 1 of a sandbox: each connection to its socket sends one line,
// a shell command, and gets its output and end.
func standIn() {
	fmt.Println("stand-in agent starts")
	ln, err := net.Listen("unix", filepath.Join(agentapi.RunDir, agentapi.Socket))
	if err != nil {
		fmt.Println(err)
		os.Exit(3)
	}
	for {
		c, err := ln.Accept()
		if err != nil {
			fmt.Println(err)
			os.Exit(4)
		}
		go func() {
			defer c.Close()
			line, err := bufio.NewReader(c).ReadString('\x00')
			if err != nil {
				return
			}
			line = strings.TrimSuffix(line, "\x00")
			if line == "exit" {
				fmt.Println("told to exit")
				os.Exit(7)
			}
			cmd := exec.Command("/bin/sh", "-c", line)
			cmd.Stdout, cmd.Stderr = c, c
			if err := cmd.Run(); err != nil {
				fmt.Fprintf(c, "\n[%v]", err)
			}
		}()
	}
}

// testRootFS is the root file system that scripts/rootfs made.
func testRootFS(t testing.TB) string {
	t.Helper()
	root := os.Getenv("PODLAB_ROOTFS")
	if root == "" {
		root = "/var/lib/podlab/rootfs/current"
	}
	if _, err := os.Stat(filepath.Join(root, "bin/sh")); err != nil {
		t.Fatalf("no root file system for labs (%v): run scripts/rootfs, or name one in PODLAB_ROOTFS", err)
	}
	return root
}

func newLauncher(t testing.TB, data string) *Launcher {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("sandboxes need root: run the tests as root")
	}
	l, err := New(Options{Data: data, RootFS: testRootFS(t), Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func create(t testing.TB, l *Launcher, id string) Sandbox {
	t.Helper()
	sb, err := l.Create(t.Context(), Request{ID: id, Config: agentapi.Config{ID: id}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { destroy(t, l, id) })
	return sb
}

func destroy(t testing.TB, l *Launcher, id string) {
	t.Helper()
	gone := l.Gone(id)
	if err := l.Delete(context.Background(), id); err != nil {
		t.Error(err)
	}
	select {
	case <-gone:
	case <-time.After(30 * time.Second):
		t.Errorf("sandbox %s is not gone after 30 s", id)
	}
}

// in runs a shell command in the sandbox, once its stand-in agent listens.
func in(t testing.TB, l *Launcher, id, command string) string {
	t.Helper()
	var conn net.Conn
	deadline := time.Now().Add(10 * time.Second)
	for {
		var err error
		conn, err = l.Dial(t.Context(), id)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no agent in %s: %v", id, err)
		}
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(command + "\x00")); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if _, err := bufio.NewReader(conn).WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestPrivilegedSandbox(t *testing.T) {
	l := newLauncher(t, t.TempDir())
	defer l.Close()
	t0 := time.Now()
	create(t, l, "one")
	t.Log("created after", time.Since(t0))
	out := in(t, l, "one", "id; cat /proc/self/cgroup /proc/self/mountinfo; ps ax; ls -la / /dev /run; ip a; ip netns add x && ip netns exec x ip l; hostname")
	t.Log(time.Since(t0), out)
}
