package agent

import (
	"context"
	"io"
	"sync"

	"podlab/lab"
	"podlab/lab/agentapi"
	"podlab/lab/facts"
	"podlab/lab/runtime"
)

func (a *Agent) facts(ctx context.Context, req agentapi.FactsRequest) (lab.Facts, error) {
	return a.collector.Collect(ctx, req)
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
