package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// program is podlab, built for this run.
var program string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "podlab-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "podlab")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "podlab/server")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "cannot build podlab: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// server is a podlab that serves from a data directory of its own.
type server struct {
	data string
	cmd  *exec.Cmd
	log  *bytes.Buffer
}

// newData makes a data directory with the root file system and the images that
// `make images` made.
func newData(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("labs need root: run the tests as root")
	}
	from := os.Getenv("PODLAB_DATA")
	if from == "" {
		from = "/var/lib/podlab"
	}
	data := t.TempDir()
	for _, name := range []string{"rootfs", "images"} {
		if _, err := os.Stat(filepath.Join(from, name)); err != nil {
			t.Fatalf("%v: run make images", err)
		}
		if err := os.Symlink(filepath.Join(from, name), filepath.Join(data, name)); err != nil {
			t.Fatal(err)
		}
	}
	return data
}

// serve starts a server and returns when it is up. Labs are removed at the end.
func serve(t *testing.T, data string, flags ...string) *server {
	t.Helper()
	s := &server{data: data, log: &bytes.Buffer{}}
	s.cmd = exec.Command(program, append([]string{"serve", "--data", data, "--addr", "127.0.0.1:0"}, flags...)...)
	s.cmd.Stderr = s.log
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(out)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("the server did not come up: %v\n%s", err, s.log)
		}
		if strings.Contains(line, "http") {
			break
		}
	}
	go func() { _, _ = io.Copy(io.Discard, r) }() // ends with the server
	return s
}

// kill ends the server as the kernel would: with no chance to clean up.
func (s *server) kill(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Wait(); err == nil {
		t.Fatal("the server was not killed")
	}
}

// end removes all labs and ends the server in an orderly way.
func (s *server) end(t *testing.T) {
	t.Helper()
	for name, phase := range s.labs(t) {
		if phase == "deleting" {
			continue
		}
		if out, err := s.podlab("lab", "delete", name); err != nil {
			t.Errorf("delete %s: %v: %s", name, err, out)
		}
	}
	if err := s.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Error(err)
	}
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("the server's end: %v\n%s", err, s.log)
	}
	if t.Failed() {
		t.Logf("the server's log:\n%s", s.log)
	}
}

// podlab runs a command against the server.
func (s *server) podlab(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "PODLAB_DATA="+s.data, "PODLAB_SERVER=", "PODLAB_TOKEN=")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (s *server) create(t *testing.T, name string) {
	t.Helper()
	if out, err := s.podlab("lab", "create", name); err != nil {
		t.Fatalf("create %s: %v: %s\n%s", name, err, out, s.log)
	}
}

// shell runs a command in a learner's root shell; how it ended is not of interest.
func (s *server) shell(name, target, command string) string {
	out, _ := s.podlab("lab", "exec", name, target, "--", "sh", "-c", command)
	return out
}

// labs maps names to phases.
func (s *server) labs(t *testing.T) map[string]string {
	t.Helper()
	out, err := s.podlab("lab", "list", "-o", "json")
	var list []struct{ Name, Phase string }
	if err == nil {
		err = json.Unmarshal([]byte(out), &list)
	}
	if err != nil {
		t.Fatalf("list: %v: %s", err, out)
	}
	labs := map[string]string{}
	for _, l := range list {
		labs[l.Name] = l.Phase
	}
	return labs
}
