package agent

import (
	"context"
	"io"
	"sync"
	"time"

	"podlab/lab"
	"podlab/lab/agentapi"
	"podlab/lab/facts"
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
	stop := context.AfterFunc(ctx, func() { p.Kill() })
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { io.Copy(stdout, p.Output()) })
	wg.Go(func() { io.Copy(stderr, p.Errors()) })
	code := p.Wait()
	drain(&wg)
	p.Kill()
	wg.Wait()
	return code, ctx.Err()
}

func (s factSource) OpenLog(place lab.TargetParts) (io.ReadCloser, error) {
	log, err := s.rt.ContainerLog(runtime.PodKey{Namespace: place.Namespace, Name: place.Pod}, place.Container)
	if err != nil {
		return nil, lab.Errorf(lab.CodeNotFound, "%v", err)
	}
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	go func() { w.CloseWithError(log.Read(ctx, runtime.LogOptions{Tail: -1}, w)) }()
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
