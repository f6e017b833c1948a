package launch

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"podlab/lab/agentapi"
)

// TestMain makes this binary play other parts: the agent of the sandboxes that
// it starts (the launcher binds the running program into each as
// /usr/bin/podlab), programs in them, and servers that are killed.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "agent":
			standIn()
		case "spawner":
			standInSpawner()
		case "probe-calls":
			probeCalls()
		case "probe-nesting":
			probeNesting()
		case "doomed-server":
			doomedServer(os.Args[2:])
		}
	}
	os.Exit(m.Run())
}

// standIn is PID 1 of a sandbox. As the real agent it leaves all that a learner
// runs to a spawner, which it starts first.
func standIn() {
	fmt.Println("stand-in agent starts")
	cmd := exec.Command("/proc/self/exe", "spawner")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	err := cmd.Run()
	fmt.Println("the spawner ended:", err)
	os.Exit(cmd.ProcessState.ExitCode())
}

// standInSpawner serves the agent's socket: each connection sends a shell
// command and gets its output and, when it failed, how.
func standInSpawner() {
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
				_, _ = fmt.Fprintf(c, "\n[%v]", err) // to whoever still listens
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
	return newLauncherWith(t, Options{Data: data})
}

func newLauncherWith(t testing.TB, opt Options) *Launcher {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("sandboxes need root: run the tests as root")
	}
	opt.RootFS, opt.Log = testRootFS(t), slog.New(slog.NewTextHandler(t.Output(), nil))
	l, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
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

// dial connects to the sandbox's stand-in agent, once it listens.
func dial(t testing.TB, l *Launcher, id string) net.Conn {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := l.Dial(context.Background(), id)
		if err == nil {
			return conn
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("no agent in %s: %v: %s", id, err, tail(filepath.Join(l.dir(id), logFile), tailBytes))
		}
	}
}

// in runs a shell command in the sandbox and returns what it prints.
func in(t testing.TB, l *Launcher, id, command string) string {
	t.Helper()
	conn := dial(t, l, id)
	defer conn.Close()
	if _, err := conn.Write([]byte(command + "\x00")); err != nil {
		t.Error(err)
		return ""
	}
	out, err := io.ReadAll(conn)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) { // the agent ended at this very command
		t.Error(err)
	}
	return string(out)
}
