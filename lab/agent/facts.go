package agent

import (
	"context"
	"io"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"podlab/lab"
	"podlab/lab/agentapi"
	"podlab/lab/facts"
	"podlab/lab/kubelet"
	"podlab/lab/runtime"
)

func (a *Agent) facts(ctx context.Context, req agentapi.FactsRequest) (lab.Facts, error) {
	return a.collector.Collect(ctx, req)
}

// settleTime is how long facts wait for the kernel's changes at most. What the
// kernel has said by now is in the log a moment later, unless it never stops.
const settleTime = time.Second

// settled is the state with all that the kernel has said until now, so that a
// check sees what the command before it did.
func (a *Agent) settled() lab.State {
	select {
	case <-a.booted:
		ctx, cancel := context.WithTimeout(context.Background(), settleTime)
		defer cancel()
		if err := a.network.Settle(ctx); err != nil {
			a.opts.log.Warn("facts may lack the last changes", "err", err)
		}
	default: // the network is being built
	}
	return a.log.State()
}

// factSource lets the collector of facts read the lab's processes.
type factSource struct{ rt *runtime.Runtime }

func (s factSource) PodProcesses() map[string]facts.PodProcesses {
	list := map[string]facts.PodProcesses{}
	for key, p := range s.rt.Pods() {
		list[key.String()] = facts.PodProcesses(p)
	}
	return list
}

func (s factSource) NodeProcesses() map[string]int { return s.rt.Nodes() }

// Run runs a command to its end, or to ctx's.
func (s factSource) Run(ctx context.Context, target lab.Target, args []string, stdout, stderr io.Writer) (int, error) {
	p, err := places(s).StartExec(ctx, execSpec{target: target, command: args})
	if err != nil {
		return 0, err
	}
	stop := context.AfterFunc(ctx, func() { _ = p.Kill() })
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = io.Copy(stdout, p.Output()) })
	wg.Go(func() { _, _ = io.Copy(stderr, p.Errors()) })
	code := p.Wait()
	drain(&wg)
	_ = p.Kill()
	wg.Wait()
	return code, ctx.Err()
}

// containerLogs opens logs as the kubelets keep them: the run before the last
// one first, so that the words of a container that crashes are still there.
type containerLogs struct{ kubelets func() *kubelet.Kubelets }

// OpenLog implements facts.Logs.
func (l containerLogs) OpenLog(place lab.TargetParts) (io.ReadCloser, error) {
	pod := types.NamespacedName{Namespace: place.Namespace, Name: place.Pod}
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		before := l.kubelets().Logs(ctx, pod, place.Container, &corev1.PodLogOptions{Previous: true}, w)
		err := l.kubelets().Logs(ctx, pod, place.Container, &corev1.PodLogOptions{}, w)
		if before == nil {
			err = nil // there is something to read
		}
		w.CloseWithError(err)
	}()
	return logReader{r, cancel}, nil
}

// logReader is a log that is being read; closing it ends the reading.
type logReader struct {
	*io.PipeReader
	cancel context.CancelFunc
}

func (l logReader) Close() error {
	l.cancel()
	return l.PipeReader.Close()
}
