package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"podlab/lab"
	"podlab/server/api"
	"podlab/server/app"
	"podlab/server/client"
	"podlab/server/launch"
)

// watched is a server that the test speaks to by its API, with an eye on what
// the host shows of its labs.
type watched struct {
	*server
	t   *testing.T
	api *client.Client
}

// watch starts a server. At the end of the test its labs are deleted and
// nothing may be left of them.
func watch(t *testing.T) *watched {
	t.Helper()
	s := &watched{t: t}
	s.start(newData(t))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		s.end(t)
		s.awaitTraces(ctx, nil)
	})
	return s
}

// start runs the server over the data directory.
func (s *watched) start(data string) {
	s.t.Helper()
	s.server = serve(s.t, data, "--labs-per-user", "100")
	var err error
	if s.api, err = client.New(filepath.Join(data, app.SocketName), ""); err != nil {
		s.t.Fatal(err)
	}
}

// create makes a lab and waits until it is ready.
func (s *watched) create(ctx context.Context, name string) string {
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
func (s *watched) run(ctx context.Context, id string, target lab.Target, script string) (string, error) {
	return s.api.Output(ctx, id, target, "sh", "-c", script)
}

// mustRun is run for what cannot fail.
func (s *watched) mustRun(ctx context.Context, id string, target lab.Target, script string) string {
	s.t.Helper()
	out, err := s.run(ctx, id, target, script)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// traces are the ids of the labs that the host shows in any way: by a
// directory, a cgroup or a process.
func (s *watched) traces() []string {
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
func (s *watched) cgroups() []string {
	s.t.Helper()
	out, err := exec.Command("find", "/sys/fs/cgroup", "-type", "d", "-name", launch.CgroupName(s.data)).Output()
	if err != nil && len(out) == 0 {
		s.t.Fatal(err)
	}
	return strings.Fields(string(out))
}

// awaitTraces waits until the host shows exactly the labs given.
func (s *watched) awaitTraces(ctx context.Context, want []string) {
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
