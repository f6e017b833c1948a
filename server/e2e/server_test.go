// Package e2e tests podlab whole: the built binary as a server, real labs in
// real sandboxes, and the host around them.
package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"podlab/lab"
	"podlab/server/api"
	"podlab/server/app"
	"podlab/server/client"
	"podlab/server/launch"
)

// server is a podlab of its own, which a test may kill and start again.
type server struct {
	t      *testing.T
	data   string
	binary string
	cmd    *exec.Cmd
	api    *client.Client
}

// newServer starts a server with the root file system that make test has made.
// At the end of the test its labs are deleted and nothing may be left.
func newServer(t *testing.T) *server {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test starts sandboxes and needs root: run make test as root")
	}
	binary, err := filepath.Abs("../../bin/podlab")
	if err == nil {
		_, err = os.Stat(binary)
	}
	if err != nil {
		t.Fatalf("the binary under test is missing, run make build: %v", err)
	}
	rootfs := os.Getenv("PODLAB_ROOTFS")
	if rootfs == "" {
		rootfs = "/var/lib/podlab/rootfs/current"
	}
	source := filepath.Dir(filepath.Dir(rootfs))
	s := &server{t: t, data: filepath.Join(t.TempDir(), "data"), binary: binary}
	if err := os.Mkdir(s.data, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"rootfs", "images"} {
		if _, err := os.Stat(filepath.Join(source, part)); err != nil {
			t.Fatalf("labs need it, run make images: %v", err)
		}
		if err := os.Symlink(filepath.Join(source, part), filepath.Join(s.data, part)); err != nil {
			t.Fatal(err)
		}
	}
	s.start()
	t.Cleanup(s.end)
	return s
}

// start runs the server and waits until it answers.
func (s *server) start() {
	s.t.Helper()
	log, err := os.OpenFile(filepath.Join(s.data, "test.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	s.cmd = exec.Command(s.binary, "serve", "--addr", "127.0.0.1:0", "--data", s.data, "--labs-per-user", "100")
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	s.cmd.Stderr = log
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	if s.api, err = client.New(filepath.Join(s.data, app.SocketName), ""); err != nil {
		s.t.Fatal(err)
	}
	// It says where it is once it listens.
	if _, err := out.Read(make([]byte, 1)); err != nil {
		text, _ := os.ReadFile(log.Name())
		s.t.Fatalf("the server did not start: %v\n%s", err, text)
	}
}

// kill ends the server as no program expects it.
func (s *server) kill() {
	s.t.Helper()
	if err := s.cmd.Process.Kill(); err != nil {
		s.t.Fatal(err)
	}
	s.cmd.Wait()
}

// end deletes all labs, stops the server and looks for what is left.
func (s *server) end() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	labs, err := s.api.Labs(ctx, true)
	if err != nil {
		s.t.Error(err)
	}
	for _, l := range labs {
		if err := s.api.DeleteLab(ctx, l.ID); err != nil {
			s.t.Error(err)
		}
	}
	s.awaitTraces(ctx, nil)
	s.cmd.Process.Signal(syscall.SIGTERM)
	if err := s.cmd.Wait(); err != nil {
		s.t.Errorf("the server ended with %v", err)
	}
}

// create makes a lab and waits until it is ready.
func (s *server) create(ctx context.Context, name string) string {
	s.t.Helper()
	l, err := s.api.CreateLab(ctx, api.NewLab{Name: name})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.api.Await(ctx, l.ID, nil); err != nil {
		s.t.Fatal(err)
	}
	return l.ID
}

// run runs a shell script in a place of a lab.
func (s *server) run(ctx context.Context, id string, target lab.Target, script string) (string, error) {
	return s.api.Output(ctx, id, target, "sh", "-c", script)
}

// mustRun is run for what cannot fail.
func (s *server) mustRun(ctx context.Context, id string, target lab.Target, script string) string {
	s.t.Helper()
	out, err := s.run(ctx, id, target, script)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// traces are the ids of the labs that the host shows in any way: by a
// directory, a cgroup or a process.
func (s *server) traces() []string {
	s.t.Helper()
	var found []string
	add := func(paths []string, err error) {
		if err != nil {
			s.t.Fatal(err)
		}
		for _, p := range paths {
			found = append(found, filepath.Base(p))
		}
	}
	add(filepath.Glob(filepath.Join(s.data, "labs", "*")))
	for _, group := range s.cgroups() {
		entries, err := os.ReadDir(group)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, e := range entries {
			if e.IsDir() {
				found = append(found, e.Name())
			}
		}
	}
	// A sandbox's first process has the lab's hostname and our binary.
	links, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		s.t.Fatal(err)
	}
	name := launch.CgroupName(s.data)
	for _, path := range links {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		for line := range strings.Lines(string(text)) {
			if _, rest, ok := strings.Cut(line, "/"+name+"/"); ok {
				id, _, _ := strings.Cut(strings.TrimSpace(rest), "/")
				found = append(found, id)
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// cgroups are the server's own directories in the host's hierarchies.
func (s *server) cgroups() []string {
	s.t.Helper()
	out, err := exec.Command("find", "/sys/fs/cgroup", "-type", "d", "-name", launch.CgroupName(s.data)).Output()
	if err != nil && len(out) == 0 {
		s.t.Fatal(err)
	}
	return strings.Fields(string(out))
}

// awaitTraces waits until the host shows exactly the labs given.
func (s *server) awaitTraces(ctx context.Context, want []string) {
	s.t.Helper()
	slices.Sort(want)
	for {
		got := s.traces()
		if slices.Equal(got, want) {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			s.t.Fatalf("the host shows the labs %v, want %v", got, want)
		}
	}
}
