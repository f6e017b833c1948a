package agent

import (
	"context"
	"errors"
	"io"

	"podlab/lab"
	"podlab/lab/runtime"
	"podlab/lab/terminal"
)

// places starts shells and commands in the lab's nodes and containers.
type places struct{ rt *runtime.Runtime }

// shell is what a terminal runs: the place's bash where it has one.
var shell = []string{"/bin/sh", "-c", "[ -x /bin/bash ] && exec /bin/bash -l; exec /bin/sh -l"}

func (p places) StartShell(ctx context.Context, target lab.Target, cols, rows uint16) (terminal.Process, error) {
	ref, err := refOf(target)
	if err != nil {
		return nil, err
	}
	proc, err := p.rt.Exec(ctx, ref, runtime.ExecSpec{Args: shell, TTY: true, Cols: cols, Rows: rows})
	if err != nil {
		return nil, execError(target, err)
	}
	return proc, nil
}

func (p places) StartExec(ctx context.Context, spec execSpec) (execProcess, error) {
	ref, err := refOf(spec.target)
	if err != nil {
		return nil, err
	}
	proc, err := p.rt.Exec(ctx, ref, runtime.ExecSpec{
		Args: spec.command, TTY: spec.tty, Cols: spec.cols, Rows: spec.rows,
		Stdin: spec.stdin, Stdout: true, Stderr: true,
	})
	if err != nil {
		return nil, execError(spec.target, err)
	}
	return command{proc}, nil
}

func refOf(target lab.Target) (runtime.Ref, error) {
	parts, err := target.Parse()
	return runtime.Ref(parts), err
}

// execError tells a learner's mistake (no such place, no such program) from a
// defect of ours.
func execError(target lab.Target, err error) error {
	if _, ok := errors.AsType[*lab.Error](err); ok {
		return err
	}
	if _, ok := errors.AsType[*runtime.StepError](err); ok {
		return lab.Errorf(lab.CodeInvalid, "%s: %v", target, err)
	}
	return lab.Errorf(lab.CodeNotFound, "%s: %v", target, err)
}

// command is a runtime's process with its streams.
type command struct{ *runtime.Process }

func (c command) Input() io.WriteCloser {
	switch {
	case c.PTY() != nil:
		return c.PTY()
	case c.Stdin != nil:
		return c.Stdin
	}
	return nowhere{}
}

func (c command) Output() io.Reader {
	if c.PTY() != nil {
		return c.PTY()
	}
	return c.Stdout
}

func (c command) Errors() io.Reader {
	if c.PTY() != nil {
		return nil
	}
	return c.Stderr
}

// nowhere takes the input of a command that was started without any.
type nowhere struct{}

func (nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (nowhere) Close() error                { return nil }
