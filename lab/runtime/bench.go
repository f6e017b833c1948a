package runtime

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"
)

// StartTimes are how long containers took from the request to the running
// program, one after the other, in an existing pod.
type StartTimes struct {
	// Ours are the runtime's, Reference those of a C program that does no more
	// than the kernel's own calls (spawn/reference.c), in the same pod.
	Ours, Reference []time.Duration
}

// benchRound is how many containers are started in a row before it is the
// other's turn, so that a busy moment of the machine hits both.
const benchRound = 10

// BenchStart starts n containers in a pod each way, and removes them.
func (r *Runtime) BenchStart(ctx context.Context, p *Pod, n int) (StartTimes, error) {
	var out StartTimes
	program, err := embeddedProgram("reference")
	if err != nil {
		return out, err
	}
	defer program.Close()
	for done := 0; done < n; done += benchRound {
		round := min(benchRound, n-done)
		theirs, err := r.reference(ctx, program, p, round)
		if err != nil {
			return out, err
		}
		out.Reference = append(out.Reference, theirs...)
		for range round {
			took, err := r.startOnce(ctx, p, done)
			if err != nil {
				return out, err
			}
			out.Ours = append(out.Ours, took)
		}
	}
	return out, nil
}

func (r *Runtime) startOnce(ctx context.Context, p *Pod, n int) (time.Duration, error) {
	spec := ContainerSpec{
		Name: "bench", Args: []string{"/bin/sleep", "100"}, Caps: defaultCaps, NoNewPrivs: true,
		LogPath: r.path("logs", "bench", strconv.Itoa(n)+".log"),
	}
	begin := time.Now()
	c, err := r.StartContainer(ctx, p, spec, nil)
	took := time.Since(begin)
	if err != nil {
		return 0, err
	}
	r.RemoveContainer(c)
	return took, c.Log.Remove()
}

func (r *Runtime) reference(ctx context.Context, program *os.File, p *Pod, n int) ([]time.Duration, error) {
	scratch, err := os.MkdirTemp(r.opts.Scratch, "reference")
	if err != nil {
		return nil, fmt.Errorf("cannot make a folder for the reference: %w", err)
	}
	defer os.RemoveAll(scratch)
	cmd := exec.CommandContext(ctx, procPath(program), strconv.Itoa(n), r.opts.Root, scratch, strconv.Itoa(p.pause.pid))
	var text, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("the reference failed: %w: %s", err, errs.String())
	}
	var out []time.Duration
	lines := bufio.NewScanner(&text)
	for lines.Scan() {
		us, err := strconv.Atoi(lines.Text())
		if err != nil {
			return nil, fmt.Errorf("the reference printed %q", lines.Text())
		}
		out = append(out, time.Duration(us)*time.Microsecond)
	}
	if len(out) != n {
		return nil, errors.New("the reference gave up")
	}
	return out, nil
}
