package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"podlab/lab"
	"podlab/lab/agentapi"
	"podlab/lab/facts"
	"podlab/lab/image"
	"podlab/lab/kube"
	"podlab/lab/kube/scheduler"
	"podlab/lab/kubelet"
	"podlab/lab/netns"
	"podlab/lab/network"
	"podlab/lab/observe"
	"podlab/lab/runtime"
	"podlab/lab/terminal"
)

// warmNamespaces wait for pods, so that a new pod is plugged in at once.
const warmNamespaces = 2

// options are where the agent finds its world; in a sandbox they are the paths
// of package agentapi.
type options struct {
	runDir, scratch, images, root string
	version                       string
	log                           *slog.Logger
}

// Agent is a lab, live.
type Agent struct {
	opts    options
	config  agentapi.Config
	started time.Time

	log       *observe.Log
	runtime   *runtime.Runtime
	network   *network.Network
	api       *kube.Server
	kubelets  *kubelet.Kubelets
	terminals *terminal.Manager
	collector *facts.Collector

	handler atomic.Pointer[http.Handler] // of the Kubernetes API, once it is up
	booted  chan struct{}                // closed when boot has returned well
	closers []func()                     // in the order made
	wg      sync.WaitGroup
}

// newAgent reads the lab's config and starts what everything else needs: the
// spawner, in the cgroup that this process is in now, and the log.
func newAgent(opts options) (*Agent, error) {
	a := &Agent{opts: opts, started: time.Now().UTC(), booted: make(chan struct{})}
	text, err := os.ReadFile(filepath.Join(opts.runDir, agentapi.ConfigFile))
	if err != nil {
		return nil, fmt.Errorf("cannot read the lab's config: %w", err)
	}
	if err := json.Unmarshal(text, &a.config); err != nil {
		return nil, fmt.Errorf("cannot read the lab's config: %w", err)
	}
	a.runtime, err = runtime.Start(runtime.Options{
		Root: opts.root, Scratch: opts.scratch, Hidden: []string{opts.runDir},
	})
	if err != nil {
		return nil, err
	}
	a.closers = append(a.closers, func() { a.runtime.Close() })
	a.log = observe.NewLog(a.config.Lab.Spec, time.Now)
	src := factSource{a.runtime}
	a.collector = facts.New(facts.Deps{
		State: a.settled, Processes: src, Runner: src,
		Logs: containerLogs{func() *kubelet.Kubelets { return a.kubelets }},
	})
	a.terminals = terminal.NewManager(places{a.runtime}, func(e lab.TerminalEvent) {
		a.log.Publish(lab.Event{Kind: lab.EventTerminal, Terminal: &e})
	})
	a.closers = append(a.closers, a.terminals.Close)
	return a, nil
}

// run serves the socket and builds the lab until ctx ends or a part fails.
func (a *Agent) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	l, err := listen(filepath.Join(a.opts.runDir, agentapi.Socket))
	if err != nil {
		return err
	}
	s := &socket{parts: a.parts()}
	a.wg.Go(func() { cancel(s.run(ctx, l)) })
	if err := a.boot(ctx); err != nil {
		cancel(err)
	} else {
		close(a.booted)
		a.trimWhenIdle(ctx)
	}
	<-ctx.Done()
	a.close()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause // Main prints it; the server reads why in the lab's log
	}
	return nil
}

// trimAfter is how long after the start its memory is given back: until then
// the page asks for much.
const trimAfter = 3 * time.Second

// trimWhenIdle gives back the memory of the start, once it is over.
func (a *Agent) trimWhenIdle(ctx context.Context) {
	a.wg.Go(func() {
		select {
		case <-time.After(trimAfter):
		case <-ctx.Done():
			return
		}
		if err := trimMemory(); err != nil {
			a.opts.log.Warn("memory is not trimmed", "err", err)
		}
	})
}

// close ends all parts, the last made first, and waits for them.
func (a *Agent) close() {
	for i := len(a.closers) - 1; i >= 0; i-- {
		a.closers[i]()
	}
	a.wg.Wait()
}

// boot builds the lab: the network beside the API, since neither needs the
// other; then nodes and kubelets; then the pods that the lab starts with.
func (a *Agent) boot(ctx context.Context) error {
	var took struct{ api, network, nodes time.Duration }
	apiUp := make(chan error, 1)
	began := time.Now()
	go func() {
		err := a.startAPI()
		took.api = time.Since(began)
		apiUp <- err
	}()
	err := a.startNetwork(ctx)
	took.network = time.Since(began)
	if err = errors.Join(err, <-apiUp); err != nil {
		return err
	}
	built := time.Now()
	if err := a.startKubelets(ctx); err != nil {
		return err
	}
	if err := a.serveNodes(ctx); err != nil {
		return err
	}
	took.nodes = time.Since(built)
	if err := a.startPods(ctx); err != nil {
		return err
	}
	a.opts.log.Info("started", "took", time.Since(began), "api", took.api, "network", took.network, "nodes", took.nodes)
	return nil
}

func (a *Agent) startAPI() error {
	api, err := kube.New(kube.Config{
		Journal:      filepath.Join(a.opts.runDir, agentapi.JournalFile),
		ServiceCIDRs: a.config.Lab.Spec.ServiceCIDRs,
		Log:          a.opts.log,
	})
	if err != nil {
		return fmt.Errorf("cannot start the Kubernetes API: %w", err)
	}
	a.api = api
	h := api.Handler()
	a.handler.Store(&h)
	return nil
}

func (a *Agent) startNetwork(ctx context.Context) error {
	underlay, err := netns.Current()
	if err != nil {
		return err
	}
	a.network, err = network.New(network.Config{Spec: a.config.Lab.Spec, Underlay: underlay, Log: a.log, Warm: warmNamespaces})
	if err != nil {
		return err
	}
	if err := a.network.Start(ctx); err != nil {
		return fmt.Errorf("cannot build the lab's network: %w", err)
	}
	return nil
}

func (a *Agent) startKubelets(ctx context.Context) error {
	images, err := image.Default()
	if err != nil {
		return err
	}
	a.kubelets, err = kubelet.Start(ctx, kubelet.Config{
		Spec: a.config.Lab.Spec, Client: a.api.Core(), Runtime: a.runtime, Network: kubelet.LabNetwork{Network: a.network},
		Images: images, ImagesDir: a.opts.images, Version: a.opts.version,
		NodeFiles: a.nodeFiles(), Steps: a.step, Log: a.opts.log,
	})
	if err != nil {
		return err
	}
	a.closers = append(a.closers, a.kubelets.Stop)
	for node, pid := range a.runtime.Nodes() {
		if err := a.network.WatchNode(node, fmt.Sprintf("/proc/%d", pid)); err != nil {
			return err
		}
	}
	schedulerCtx, stopScheduler := context.WithCancel(context.WithoutCancel(ctx))
	a.wg.Go(func() {
		scheduler.Run(schedulerCtx, scheduler.Config{Core: a.api.Core(), OnStep: a.step, Log: a.opts.log})
	})
	a.closers = append(a.closers, stopScheduler)
	a.api.SetRuntime(a.kubelets)
	return nil
}

func (a *Agent) step(e lab.StepEvent) { a.log.Publish(lab.Event{Kind: lab.EventStep, Step: &e}) }

// parts are what the socket serves. Those that need the API say so until it is up.
func (a *Agent) parts() parts {
	return parts{
		handshake: a.handshake,
		state:     a.log.State,
		events:    logSource{a.log},
		apply:     a.apply,
		facts:     a.facts,
		terminals: a.terminals,
		exec:      places{a.runtime},
		kube: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if h := a.handler.Load(); h != nil {
				(*h).ServeHTTP(w, r)
				return
			}
			http.Error(w, "the lab's Kubernetes API is starting", http.StatusServiceUnavailable)
		}),
		log: a.opts.log,
	}
}

func (a *Agent) handshake() agentapi.Handshake {
	s := a.log.State()
	return agentapi.Handshake{
		Protocol: agentapi.Protocol, Version: a.opts.version, ID: a.config.ID,
		StartedAt: a.started, Phase: s.Phase, Reason: s.Reason,
	}
}

// logSource is the lab's log as the socket reads it.
type logSource struct{ *observe.Log }

func (l logSource) Subscribe(after uint64) (*lab.State, subscription, error) {
	sub := l.Log.Subscribe(after)
	return sub.Snapshot, sub, nil
}
