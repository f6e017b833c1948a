package kubelet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"podlab/lab"
	"podlab/lab/runtime"
)

// worker runs one pod from its binding to its end. Its goroutine alone touches
// what stands below mu's group; others leave messages and wake it.
type worker struct {
	k    *Kubelet
	uid  types.UID
	name types.NamespacedName
	born time.Time
	wake chan struct{} // holds one token

	mu     sync.Mutex
	pod    *corev1.Pod // the newest from the API
	gone   bool        // no longer in the API
	done   bool        // the worker has ended
	exits  []exit
	shared []*container // for the streams

	sandbox    *runtime.Pod
	ns         NetNS
	plugged    bool
	shown      bool // has a name on its node
	volumes    map[string]volume
	ips        []string
	containers []*container // init containers first
	sent       *corev1.PodStatus
	retry      backoffState // of the sandbox
	ending     *ending
	over       bool // all containers have ended for good
	logs       string
}

// exit is a container's end, reported by the runtime.
type exit struct {
	c      *container
	status runtime.ExitStatus
}

func newWorker(k *Kubelet, pod *corev1.Pod) *worker {
	w := &worker{
		k: k, uid: pod.UID, name: types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}, born: k.cfg.Clock.Now(),
		wake: make(chan struct{}, 1), pod: pod,
	}
	w.logs = k.cfg.Runtime.LogDir(strings.Join([]string{pod.Namespace, pod.Name, string(pod.UID)}, "_"))
	w.containers = newContainers(pod)
	w.shared = w.containers
	w.wake <- struct{}{}
	return w
}

func (w *worker) update(pod *corev1.Pod) {
	w.mu.Lock()
	w.pod = pod
	w.mu.Unlock()
	w.poke()
}

// vanish says that the pod is no longer in the API, and returns whether the
// worker was done with it already.
func (w *worker) vanish() bool {
	w.mu.Lock()
	w.gone = true
	done := w.done
	w.mu.Unlock()
	w.poke()
	return done
}

func (w *worker) exited(e exit) {
	w.mu.Lock()
	w.exits = append(w.exits, e)
	w.mu.Unlock()
	w.poke()
}

func (w *worker) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// read takes the messages.
func (w *worker) read() (*corev1.Pod, bool, []exit) {
	w.mu.Lock()
	defer w.mu.Unlock()
	exits := w.exits
	w.exits = nil
	return w.pod, w.gone, exits
}

func (w *worker) dir() string    { return w.k.cfg.Runtime.Dir(string(w.uid)) }
func (w *worker) logDir() string { return w.logs }
func (w *worker) ref() PodRef {
	return PodRef{Namespace: w.name.Namespace, Name: w.name.Name, UID: string(w.uid), Node: w.k.node.Name}
}

// run works until the pod is gone or ctx ends.
func (w *worker) run(ctx context.Context) {
	timer := w.k.cfg.Clock.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-timer.C():
		}
		next, done := w.sync(ctx)
		if done {
			w.mu.Lock()
			w.done = true
			gone := w.gone
			w.mu.Unlock()
			if gone {
				w.k.finished(w.uid)
			}
			return
		}
		timer.Stop()
		if !next.IsZero() {
			timer.Reset(max(0, next.Sub(w.k.cfg.Clock.Now())))
		}
	}
}

// sync does what is due, and returns when to look again without a message
// (zero: never), and whether the pod is gone.
func (w *worker) sync(ctx context.Context) (next time.Time, done bool) {
	pod, gone, exits := w.read()
	for _, e := range exits {
		w.containerEnded(e)
	}
	if len(exits) > 0 && !gone {
		w.report(ctx, pod)
	}
	if gone || pod.DeletionTimestamp != nil {
		return w.end(ctx, pod, gone)
	}
	if w.over || isTerminal(pod.Status.Phase) {
		w.finish(ctx, pod)
		return time.Time{}, false
	}
	next = w.start(ctx, pod)
	w.report(ctx, pod)
	return next, false
}

func isTerminal(p corev1.PodPhase) bool { return p == corev1.PodSucceeded || p == corev1.PodFailed }

// start brings the pod to where it should be.
func (w *worker) start(ctx context.Context, pod *corev1.Pod) time.Time {
	if w.sandbox == nil {
		now := w.k.cfg.Clock.Now()
		if at := w.retry.notBefore; now.Before(at) {
			return at
		}
		if err := w.startSandbox(ctx, pod); err != nil {
			if ctx.Err() != nil {
				return time.Time{}
			}
			w.retry.fail(now, Backoff{Base: min(w.k.cfg.Backoff.Base, time.Second), Max: w.k.cfg.Backoff.Max})
			return w.retry.notBefore
		}
		w.retry = backoffState{}
	}
	began := w.k.cfg.Clock.Now()
	first := !w.everStarted()
	next := w.startContainers(ctx, pod)
	if first && w.everStarted() {
		w.step("create", 7, "containers start", w.runningNames()+" in the pod's namespaces", began, nil)
		w.verify(ctx, pod)
		w.showNetns()
	}
	return next
}

func (w *worker) everStarted() bool {
	for _, c := range w.containers {
		if c.started {
			return true
		}
	}
	return false
}

func (w *worker) runningNames() string {
	var names []string
	for _, c := range w.containers {
		if c.running() {
			names = append(names, c.spec.Name)
		}
	}
	return strings.Join(names, ", ")
}

// step tells a step that ends now.
func (w *worker) step(course string, number int, name, detail string, began time.Time, err error) {
	e := lab.StepEvent{
		Pod: w.name.String(), Course: course, Number: number, Name: name, Detail: detail,
		StartedAt: began.UTC(), Micros: w.k.cfg.Clock.Since(began).Microseconds(),
	}
	if err != nil {
		e.Error = err.Error()
	}
	w.k.cfg.Steps(e)
}

// startSandbox does steps 2 to 6: volumes, namespace, network, pause.
func (w *worker) startSandbox(ctx context.Context, pod *corev1.Pod) error {
	began := w.k.cfg.Clock.Now()
	if err := os.MkdirAll(w.dir(), 0o755); err != nil {
		return w.sandboxFailed(pod, "Failed", "", err)
	}
	volumes, err := w.k.makeVolumes(ctx, pod, w.addresses(pod))
	w.step("create", 2, "kubelet begins", fmt.Sprintf("on %s, %d volumes", w.k.node.Name, len(volumes)), began, err)
	if err != nil {
		return w.sandboxFailed(pod, "FailedMount", "", err)
	}
	w.volumes = volumes
	if err := w.startNetwork(ctx, pod); err != nil {
		return w.sandboxFailed(pod, "FailedCreatePodSandBox", "Failed to create pod sandbox: ", errors.Join(err, w.stopSandbox(nil)))
	}
	if err := w.writeEtc(pod); err != nil {
		return w.sandboxFailed(pod, "Failed", "", errors.Join(err, w.stopSandbox(nil)))
	}
	return nil
}

// sandboxFailed tells why a pod could not begin.
func (w *worker) sandboxFailed(pod *corev1.Pod, reason, prefix string, err error) error {
	if !errors.Is(err, context.Canceled) {
		w.k.recorder.Event(pod, corev1.EventTypeWarning, reason, prefix+err.Error())
	}
	return err
}

// startNetwork makes the pod's network and its pause at the same time: neither
// needs the other.
func (w *worker) startNetwork(ctx context.Context, pod *corev1.Pod) error {
	hostname, _ := hostnameAndDomain(pod, w.k.cfg.Spec.ClusterDomain)
	spec := runtime.PodSpec{
		PodKey: runtime.PodKey{Namespace: pod.Namespace, Name: pod.Name}, UID: string(w.uid), Node: w.k.node.Name, Hostname: hostname,
		SharePID: isTrue(pod.Spec.ShareProcessNamespace), HostPID: pod.Spec.HostPID, HostIPC: pod.Spec.HostIPC,
	}
	if pod.Spec.HostNetwork {
		now := w.k.cfg.Clock.Now()
		for i, name := range []string{"network namespace", "CNI ADD", "addresses and interface", "routes"} {
			w.step("create", 3+i, name, "none: hostNetwork, the node's own", now, nil)
		}
		sandbox, err := w.k.cfg.Runtime.StartPod(ctx, spec, nil)
		w.sandbox, w.ips = sandbox, w.addresses(pod).host
		return err
	}
	began := w.k.cfg.Clock.Now()
	ns, err := w.k.cfg.Network.NewPodNS(ctx)
	w.step("create", 3, "network namespace", "", began, err)
	if err != nil {
		return err
	}
	w.ns, spec.NetNS = ns, ns.File()
	var wg sync.WaitGroup
	var sandbox *runtime.Pod
	var podErr error
	wg.Go(func() { sandbox, podErr = w.k.cfg.Runtime.StartPod(ctx, spec, nil) })
	ips, err := w.k.cfg.Network.AddPod(ctx, w.ref(), pod.Annotations, ns, w.k.cfg.Steps)
	wg.Wait()
	w.sandbox, w.plugged = sandbox, err == nil
	w.ips = nil
	for _, ip := range ips {
		w.ips = append(w.ips, ip.String())
	}
	return errors.Join(err, podErr)
}

// writeEtc writes the files of /etc that all containers of the pod share.
func (w *worker) writeEtc(pod *corev1.Pod) error {
	hostname, domain := hostnameAndDomain(pod, w.k.cfg.Spec.ClusterDomain)
	hosts := podHosts(parseAddrs(w.ips), hostname, domain, pod.Spec.HostAliases)
	if pod.Spec.HostNetwork {
		hosts = hostNetworkHosts(nodeHosts(w.k.cfg.Spec), pod.Spec.HostAliases)
	}
	for name, text := range map[string]string{
		"hosts": hosts, "hostname": hostname + "\n", "resolv.conf": podResolvConf(pod, w.k.cfg.Spec),
	} {
		if err := os.WriteFile(filepath.Join(w.dir(), "etc-"+name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("cannot write the pod's /etc/%s: %w", name, err)
		}
	}
	return nil
}

// linkWait is how long a pod's report waits for its link. The kernel takes a
// link into use within milliseconds, but may put it off for a second; and a
// learner may have taken the link down.
const linkWait = 20 * time.Millisecond

// verify is step 8: the kernel is asked whether the pod has what it was given,
// and whether its link carries packets yet.
func (w *worker) verify(ctx context.Context, pod *corev1.Pod) {
	began := w.k.cfg.Clock.Now()
	detail, err := "hostNetwork", error(nil)
	if !pod.Spec.HostNetwork {
		detail, err = verifyNetwork(w.sandbox.Process().PID(), w.ips)
		if err == nil && !w.linkRuns(ctx) {
			detail += ", the link is not running yet"
		}
	}
	w.report(ctx, pod)
	w.step("create", 8, "verified, status reported", detail, began, err)
	if err != nil {
		w.k.recorder.Eventf(pod, corev1.EventTypeWarning, "NetworkNotReady", "network is not ready: %v", err)
	}
}

// linkRuns waits a little for the pod's link and says whether it runs.
func (w *worker) linkRuns(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, linkWait)
	defer cancel()
	return w.k.cfg.Network.WaitRunning(ctx, w.ref()) == nil
}

// showNetns names the pod's network namespace on its node. A pod runs well
// without.
func (w *worker) showNetns() {
	if !w.plugged || w.shown {
		return
	}
	if err := w.k.cfg.Runtime.ShowNetns(w.sandbox, w.k.cfg.Network.Netns(w.ref())); err != nil {
		w.k.cfg.Log.Warn("cannot name a pod's network namespace on its node", "pod", w.name, "err", err)
		return
	}
	w.shown = true
}

// addresses are the pod's and its node's.
func (w *worker) addresses(pod *corev1.Pod) podIPs {
	hostname, _ := hostnameAndDomain(pod, w.k.cfg.Spec.ClusterDomain)
	if pod.Spec.HostNetwork {
		hostname = w.k.node.Name
	}
	out := podIPs{hostname: hostname, pod: w.ips}
	for _, a := range w.k.node.Addresses {
		out.host = append(out.host, a.String())
	}
	return out
}

// backoffState is where a row of failures stands.
type backoffState struct {
	delay     time.Duration
	notBefore time.Time
}

// fail sets the next delay, counted from at.
func (b *backoffState) fail(at time.Time, limits Backoff) {
	b.delay = min(max(2*b.delay, limits.Base), limits.Max)
	b.notBefore = at.Add(b.delay)
}
