package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"podlab/lab"
	"podlab/lab/agentapi"
	"podlab/lab/labbench"
	"podlab/server/app"
	"podlab/server/client"
	"podlab/server/launch"
)

// Options of a run.
type Options struct {
	// Data is a server's data directory; its root file system and images are
	// used, nothing else of it.
	Data string
	// Program is the podlab that is measured.
	Program string
	// InsideCommand is the argument with which it measures as a sandbox's PID 1.
	InsideCommand string
	// Rounds is how often a lab is created; Labs how many are at once.
	Rounds, Labs int
	// Progress gets a line for each part.
	Progress io.Writer
}

// group is some rows that are measured together.
type group struct {
	name string
	run  func(*env, context.Context) ([]Row, error)
}

// groups in the order of the table.
var groups = []group{
	{"labs, one after the other", (*env).creates},
	{"inside a sandbox", (*env).inside},
	{"sandboxes", (*env).sandboxes},
	{"an idle lab", (*env).idle},
	{"events", (*env).events},
	{"many labs", (*env).many},
}

// env is what the parts share.
type env struct {
	Options
	dir string
	api *client.Client
}

// Run measures everything in a data directory of its own and leaves nothing.
func Run(ctx context.Context, o Options) (rows []Row, err error) {
	e := &env{Options: o}
	if e.dir, err = os.MkdirTemp("", "podlab-bench-"); err != nil {
		return nil, err
	}
	defer os.RemoveAll(e.dir)
	stop, err := e.serve(ctx)
	if err != nil {
		return nil, err
	}
	defer stop()
	for _, g := range groups {
		fmt.Fprintf(o.Progress, "measuring %s\n", g.name)
		got, err := g.run(e, ctx)
		if ctx.Err() != nil {
			return rows, context.Cause(ctx)
		}
		rows = append(rows, got...)
		if err != nil {
			rows = append(rows, Row{What: g.name, Error: err.Error()})
		}
	}
	return rows, nil
}

// newData makes a data directory with the root file system and images of the
// real one.
func (e *env) newData(name string) (string, error) {
	dir := filepath.Join(e.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	for _, part := range []string{"rootfs", "images"} {
		if err := os.Symlink(filepath.Join(e.Data, part), filepath.Join(dir, part)); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// serve starts a server of its own and returns how to end it, labs and all.
func (e *env) serve(ctx context.Context) (stop func(), err error) {
	data, err := e.newData("server")
	if err != nil {
		return nil, err
	}
	logFile, err := os.Create(filepath.Join(e.dir, "server.log"))
	if err != nil {
		return nil, err
	}
	defer logFile.Close()
	most := fmt.Sprint(e.Labs + e.Rounds + 10)
	cmd := exec.CommandContext(ctx, e.Program, "serve", "--addr", "127.0.0.1:0", "--data", data, "--labs-per-user", most, "--labs-per-host", most)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	end := func() {
		e.clear()
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	}
	if e.api, err = client.New(filepath.Join(data, app.SocketName), ""); err != nil {
		end()
		return nil, err
	}
	for range 500 {
		if _, err = e.api.Labs(ctx, true); err == nil {
			return end, nil
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			break
		}
	}
	text, _ := os.ReadFile(logFile.Name())
	cmd.Process.Kill()
	cmd.Wait()
	return nil, fmt.Errorf("the server does not answer: %w\n%s", err, text)
}

// clear deletes what a part that failed has left.
func (e *env) clear() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if e.api == nil {
		return
	}
	labs, err := e.api.Labs(ctx, true)
	if err != nil {
		return
	}
	for _, l := range labs {
		_ = e.api.DeleteLab(ctx, l.ID)
	}
	for _, l := range labs {
		_ = e.awaitGone(ctx, l.ID)
	}
}

// awaitGone waits until nothing is left of a lab: its directory goes last.
func (e *env) awaitGone(ctx context.Context, id string) error {
	dir := filepath.Join(e.dir, "server", "labs", id)
	for {
		if _, err := os.Lstat(dir); os.IsNotExist(err) {
			return nil
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// launcher is one of its own, for what is measured below the server.
func (e *env) launcher(name, command string) (*launch.Launcher, error) {
	data, err := e.newData(name)
	if err != nil {
		return nil, err
	}
	return launch.New(launch.Options{Data: data, Program: e.Program, Command: command})
}

func (e *env) sandboxes(ctx context.Context) ([]Row, error) {
	l, err := e.launcher("sandboxes", "")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	return Sandboxes(ctx, l, 10), nil
}

// inside measures pods' networks and containers where labs run.
func (e *env) inside(ctx context.Context) ([]Row, error) {
	l, err := e.launcher("inside", e.InsideCommand)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	const id = "bench-inside"
	if _, err := l.Create(ctx, launch.Request{ID: id, Config: agentapi.Config{ID: id, Lab: lab.DefaultLab()}}); err != nil {
		return nil, err
	}
	defer func() {
		gone := l.Gone(id)
		if l.Delete(context.WithoutCancel(ctx), id) == nil {
			<-gone
		}
	}()
	ended, err := l.Watch(id)
	if err != nil {
		return nil, err
	}
	var exit launch.Exit
	select {
	case exit = <-ended:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	text, err := os.ReadFile(filepath.Join(e.dir, "inside", "labs", id, "run", labbench.ResultFile))
	if err != nil {
		return nil, fmt.Errorf("%s: %s", exit.Reason, exit.Log)
	}
	var r labbench.Result
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, err
	}
	slices.Sort(r.Ours)
	slices.Sort(r.Reference)
	ours, reference := r.Ours[len(r.Ours)/2], r.Reference[len(r.Reference)/2]
	return []Row{
		{What: "pod network, cold", Value: ratio(r.Network.Cold, r.Network.Bare), Unit: "×", Limit: 1.3,
			Beside: fmt.Sprintf("bare batched netlink %v, ours %v, medians of %d", round(r.Network.Bare), round(r.Network.Cold), r.Network.N)},
		{What: "pod network, from the warm pool", Value: ratio(r.Network.Warm, r.Network.Cold), Unit: "×", Limit: 0.6,
			Beside: fmt.Sprintf("cold %v, warm %v", round(r.Network.Cold), round(r.Network.Warm))},
		{What: "container start in a pod", Value: ratio(ours, reference), Unit: "×", Limit: 2,
			Beside: fmt.Sprintf("static C clone3 and pivot_root %v, ours %v, medians of %d", round(reference), round(ours), len(r.Ours))},
	}, nil
}

func ratio(a, b time.Duration) float64 { return float64(a) / float64(b) }

func round(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
