package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"podlab/lab"
	"podlab/lab/agentapi"
	"podlab/lab/kube"
)

// apiPort is where the lab's API listens on its first node, as kube-apiserver does.
const apiPort = 6443

// serveNodes lets the nodes' own kubectl reach the API: it listens in the
// first node's network namespace, the control plane of the lab. All who can
// reach it are inside the lab, where the learner is the administrator, so it
// asks for no credentials.
func (a *Agent) serveNodes(ctx context.Context) error {
	if len(a.config.Lab.Spec.Nodes) == 0 {
		return nil
	}
	node := a.config.Lab.Spec.Nodes[0].Name
	ns := a.network.NodeNS(node)
	if ns == nil {
		return fmt.Errorf("cannot serve the API on node %s: it has no network", node)
	}
	var l net.Listener
	err := ns.Do(func() (err error) {
		l, err = net.Listen("tcp", fmt.Sprintf(":%d", apiPort))
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot serve the API on node %s: %w", node, err)
	}
	srv := &http.Server{Handler: a.api.Handler(), ReadHeaderTimeout: 10 * time.Second}
	a.wg.Go(func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			a.opts.log.Error("the API on the node has ended", "node", node, "err", err)
		}
	})
	a.closers = append(a.closers, func() { srv.Close() })
	return nil
}

// nodeFiles are what the nodes have beside the root file system: a kubeconfig
// for root, so that kubectl works there as on a control plane.
func (a *Agent) nodeFiles() map[string]string {
	for _, n := range a.config.Lab.Spec.Nodes {
		for _, addr := range n.Addresses {
			return map[string]string{"/root/.kube/config": fmt.Sprintf(nodeKubeconfig, netip.AddrPortFrom(addr, apiPort))}
		}
	}
	return nil
}

const nodeKubeconfig = `apiVersion: v1
kind: Config
clusters:
- name: lab
  cluster: {server: "http://%s"}
contexts:
- name: lab
  context: {cluster: lab, user: admin}
users:
- name: admin
current-context: lab
`

// startPods mirrors the API's pods into the log, applies the lab's manifests
// unless the journal has brought back a learner's objects, and publishes the
// ready phase once the pods run, or will not run without the learner.
func (a *Agent) startPods(ctx context.Context) error {
	wait := &readiness{publish: func() {
		a.log.Publish(lab.Event{Kind: lab.EventPhase, Phase: &lab.PhaseEvent{Phase: lab.PhaseReady}})
	}}
	m := &mirror{api: a.api.Core(), publish: func(e lab.Event) { a.log.Publish(e) }, changed: wait.changed}
	mirrorCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	a.wg.Go(func() { m.run(mirrorCtx) })
	a.closers = append(a.closers, cancel)

	wanted, err := a.applyOnce(ctx)
	if err != nil {
		return fmt.Errorf("cannot apply the lab's manifests: %w", err)
	}
	wait.await(wanted)
	return nil
}

// appliedFile says that the lab's manifests were applied: an agent that starts
// again has them, as the learner changed them, from the journal.
const appliedFile = "applied"

// applyOnce applies the lab's manifests in the lab's first life, and returns
// the names of the pods among them.
func (a *Agent) applyOnce(ctx context.Context) ([]string, error) {
	marker := filepath.Join(a.opts.runDir, appliedFile)
	if _, err := os.Stat(marker); err == nil || a.config.Manifests == "" {
		return nil, nil
	}
	result, err := a.api.Apply(ctx, []byte(a.config.Manifests), kube.ApplyOptions{})
	if err != nil {
		return nil, err
	}
	if len(result.Errors) > 0 {
		return nil, joinErrors(result.Errors)
	}
	var pods []string
	for _, o := range result.Objects {
		if o.Kind == "Pod" {
			pods = append(pods, o.Namespace+"/"+o.Name)
		}
	}
	return pods, os.WriteFile(marker, nil, 0o600)
}

func joinErrors(list []*lab.Error) error {
	errs := make([]error, len(list))
	for i, e := range list {
		errs[i] = e
	}
	return errors.Join(errs...)
}

// readiness publishes once, when the pods that are waited for have settled.
type readiness struct {
	publish func()

	mu      sync.Mutex
	pods    map[string]lab.Pod
	wanted  []string
	waiting bool // await was called
	done    bool
}

// await says which pods to wait for, by "namespace/name".
func (r *readiness) await(wanted []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wanted, r.waiting = wanted, true
	r.checkLocked()
}

// changed takes the pods as they are now; it does not keep the map.
func (r *readiness) changed(pods map[string]lab.Pod) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done {
		return
	}
	r.pods = make(map[string]lab.Pod, len(pods))
	for k, v := range pods {
		r.pods[k] = v
	}
	r.checkLocked()
}

func (r *readiness) checkLocked() {
	if r.done || !r.waiting {
		return
	}
	for _, name := range r.wanted {
		if p, ok := r.pods[name]; !ok || !settled(p) {
			return
		}
	}
	r.done, r.pods = true, nil
	r.publish()
}

// settled says whether a pod is ready, has ended, or waits for the learner to
// mend it: a lesson may begin with a broken pod.
func settled(p lab.Pod) bool {
	if p.Ready || p.Phase == "Succeeded" || p.Phase == "Failed" {
		return true
	}
	for _, c := range p.Containers {
		switch {
		case c.State == "waiting" && c.Reason != "" && c.Reason != "ContainerCreating" && c.Reason != "PodInitializing",
			c.State == "running" && !c.Ready && !c.Init: // a probe says no
			return true
		}
	}
	return strings.HasPrefix(p.Status, "Unschedulable")
}

func (a *Agent) apply(ctx context.Context, text []byte) (agentapi.ApplyResult, error) {
	select {
	case <-a.booted:
	case <-ctx.Done():
		return agentapi.ApplyResult{}, ctx.Err()
	}
	// A lab's shape is settled when it is created.
	docs, _ := kube.ParseManifest(text) // what is wrong with it, Apply says
	for _, d := range docs {
		if d.APIVersion == lab.APIVersion && d.Kind == lab.KindLab {
			return agentapi.ApplyResult{Errors: []*lab.Error{{Code: lab.CodeInvalid, Line: d.Line, Field: "kind",
				Message: "a Lab describes the nodes of a lab that is to be created; in this one apply Kubernetes objects"}}}, nil
		}
	}
	result, err := a.api.Apply(ctx, text, kube.ApplyOptions{})
	return result.ApplyResult, err
}
