package kubelet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"

	"podlab/lab"
	"podlab/lab/runtime"
)

// Exec runs cmd in a running container and carries its streams until it ends.
// A status other than 0 is a utilexec.ExitError.
func (k *Kubelets) Exec(ctx context.Context, pod types.NamespacedName, container string, cmd []string,
	in io.Reader, out, errs io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	p, err := k.cfg.Runtime.Exec(ctx, runtime.Ref{Namespace: pod.Namespace, Pod: pod.Name, Container: container}, runtime.ExecSpec{
		Args: cmd, TTY: tty, Stdin: in != nil && !tty, Stdout: out != nil && !tty, Stderr: errs != nil && !tty,
	})
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = p.Kill() })
	defer stop()
	done := make(chan struct{})
	defer close(done)
	if tty {
		go resizes(done, resize, p.Resize)
	}
	var outs sync.WaitGroup
	copyOut := func(w io.Writer, r *os.File) {
		if w != nil && r != nil {
			outs.Go(func() { _, _ = io.Copy(w, r) }) // a pseudo-terminal ends with EIO
		}
	}
	if tty {
		copyOut(out, p.PTY())
		go copyIn(p.PTY(), in)
	} else {
		copyOut(out, p.Stdout)
		copyOut(errs, p.Stderr)
		go copyIn(p.Stdin, in)
	}
	code := p.Wait()
	finished := make(chan struct{})
	go func() { outs.Wait(); close(finished) }()
	select { // what it left in the background may hold its outputs open
	case <-finished:
	case <-time.After(lingering):
	}
	err = p.Kill()
	<-finished
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if code != 0 {
		return utilexec.CodeExitError{Err: fmt.Errorf("command terminated with exit code %d", code), Code: code}
	}
	return err
}

// lingering is how long the outputs of a command that has ended are read on.
const lingering = 500 * time.Millisecond

// copyIn feeds a command until either side ends. The goroutine that runs it
// ends when the peer's stream does, which the API server closes.
func copyIn(w *os.File, r io.Reader) {
	if w == nil || r == nil {
		return
	}
	_, _ = io.Copy(w, r)
	if info, err := w.Stat(); err == nil && info.Mode()&os.ModeNamedPipe != 0 {
		w.Close() // the end of standard input; a terminal stays open
	}
}

func resizes(done <-chan struct{}, sizes <-chan remotecommand.TerminalSize, resize func(cols, rows uint16) error) {
	for {
		select {
		case s, ok := <-sizes:
			if !ok {
				return
			}
			_ = resize(s.Width, s.Height) // of a terminal that is ending
		case <-done:
			return
		}
	}
}

// find returns the state of a container that the streams need.
func (k *Kubelets) find(pod types.NamespacedName, name string) (run *runtime.Container, log, previous *runtime.Log, err error) {
	w, err := k.worker(pod)
	if err != nil {
		return nil, nil, nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.shared {
		if c.spec.Name == name {
			return c.run, c.log, c.previous, nil
		}
	}
	return nil, nil, nil, lab.Errorf(lab.CodeNotFound, "container %s is not valid for pod %s", name, pod.Name)
}

// Attach joins the streams of a container's own process.
func (k *Kubelets) Attach(ctx context.Context, pod types.NamespacedName, container string,
	in io.Reader, out, errs io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	run, _, _, err := k.find(pod, container)
	if err != nil {
		return err
	}
	if run == nil || !run.Running() {
		return fmt.Errorf("container %q of pod %s is not running", container, pod)
	}
	return run.Attach(ctx, in, out, errs, func(set func(cols, rows uint16) error, done <-chan struct{}) { resizes(done, resize, set) })
}

// PortForward copies between stream and a TCP port on the pod's localhost.
func (k *Kubelets) PortForward(ctx context.Context, pod types.NamespacedName, port int32, stream io.ReadWriteCloser) error {
	defer stream.Close()
	w, err := k.worker(pod)
	if err != nil {
		return err
	}
	conn, err := k.cfg.Network.Dial(ctx, w.ref(), w.hostNetwork(), uint16(port))
	if err != nil {
		return fmt.Errorf("failed to connect to localhost:%d inside namespace of pod %s: %w", port, pod, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	toPod := make(chan error, 1)
	go func() {
		_, err := io.Copy(conn, stream)
		if c, ok := conn.(interface{ CloseWrite() error }); ok {
			err = errors.Join(err, c.CloseWrite())
		}
		toPod <- err
	}()
	_, err = io.Copy(stream, conn)
	select {
	case terr := <-toPod:
		err = errors.Join(err, terr)
	default: // the pod has closed; the peer's half ends with the stream
	}
	return err
}

func (w *worker) hostNetwork() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pod.Spec.HostNetwork
}

// Logs writes a container's log as opts ask, and follows it if they do.
func (k *Kubelets) Logs(ctx context.Context, pod types.NamespacedName, container string, opts *corev1.PodLogOptions, out io.Writer) error {
	_, log, previous, err := k.find(pod, container)
	if err != nil {
		return err
	}
	if opts.Previous {
		log = previous
	}
	if log == nil {
		if opts.Previous {
			return fmt.Errorf("previous terminated container %q in pod %q not found", container, pod.Name)
		}
		return fmt.Errorf("container %q in pod %q is waiting to start", container, pod.Name)
	}
	lo := runtime.LogOptions{Tail: -1, Follow: opts.Follow, Timestamps: opts.Timestamps}
	if opts.TailLines != nil {
		lo.Tail = *opts.TailLines
	}
	if opts.LimitBytes != nil {
		lo.Limit = *opts.LimitBytes
	}
	switch {
	case opts.SinceTime != nil:
		lo.Since = opts.SinceTime.Time
	case opts.SinceSeconds != nil:
		lo.Since = time.Now().Add(-time.Duration(*opts.SinceSeconds) * time.Second)
	}
	if opts.Stream != nil && *opts.Stream != corev1.LogStreamAll {
		lo.Stream = map[string]string{corev1.LogStreamStdout: "stdout", corev1.LogStreamStderr: "stderr"}[*opts.Stream]
	}
	return log.Read(ctx, lo, out)
}
