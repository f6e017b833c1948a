package kubelet

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"

	"podlab/lab/image"
	"podlab/lab/runtime"
)

// container is a container of a pod through all its runs. The worker's
// goroutine owns it, but for run, log and previous, which mu of the worker
// guards because the streams read them.
type container struct {
	spec *corev1.Container
	init bool

	run           *runtime.Container // the current or last run
	log, previous *runtime.Log

	started  bool // has run in this sandbox
	restarts int32
	state    corev1.ContainerState
	last     corev1.ContainerState
	id       string // of the current or last run
	imageID  string
	image    image.Image

	restart backoffState
	pull    backoffState
	pullErr string
	// creating holds back what failed before a run began.
	creating backoffState
}

// The reasons of a container that waits, in a kubelet's words.
const (
	reasonCreating    = "ContainerCreating"
	reasonInit        = "PodInitializing"
	reasonCrashLoop   = "CrashLoopBackOff"
	reasonPull        = "ErrImagePull"
	reasonPullBackOff = "ImagePullBackOff"
	reasonNeverPull   = "ErrImageNeverPull"
	reasonBadName     = "InvalidImageName"
	reasonConfig      = "CreateContainerConfigError"
	reasonCreate      = "CreateContainerError"
)

// newContainers makes the containers of a pod. What its status in the API says
// to have run is of the agent's last life: all of it has ended, as when a real
// node has been off.
func newContainers(pod *corev1.Pod) []*container {
	var all []*container
	add := func(specs []corev1.Container, statuses []corev1.ContainerStatus, init bool) {
		for i := range specs {
			c := &container{spec: &specs[i], init: init}
			c.wait(reasonCreating, "")
			if len(pod.Spec.InitContainers) > 0 && !init {
				c.wait(reasonInit, "")
			}
			if st, ok := podutil.GetContainerStatus(statuses, specs[i].Name); ok {
				c.resume(st)
			}
			all = append(all, c)
		}
	}
	add(pod.Spec.InitContainers, pod.Status.InitContainerStatuses, true)
	add(pod.Spec.Containers, pod.Status.ContainerStatuses, false)
	return all
}

// resume takes over what the API remembers of a container.
func (c *container) resume(st corev1.ContainerStatus) {
	c.restarts, c.last = st.RestartCount, st.LastTerminationState
	switch {
	case st.State.Running != nil:
		c.last = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
			ExitCode: 255, Reason: "Unknown", StartedAt: st.State.Running.StartedAt, FinishedAt: metav1.Now(), ContainerID: st.ContainerID,
		}}
		c.restarts++
	case st.State.Terminated != nil:
		c.last = st.State
		c.restarts++
	}
}

func (c *container) running() bool { return c.state.Running != nil }

// sidecar says whether an init container runs beside the others.
func (c *container) sidecar() bool { return c.init && podutil.IsRestartableInitContainer(c.spec) }

func (c *container) wait(reason, message string) {
	c.state = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
}

// earliest returns the earlier of two times of which zero means never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// startContainers starts what should run and does not, init containers one
// after the other before all else. It returns when to look again.
func (w *worker) startContainers(ctx context.Context, pod *corev1.Pod) time.Time {
	var next time.Time
	for _, c := range w.containers {
		if c.init && !c.sidecar() && c.succeeded() {
			continue
		}
		if c.init && !c.sidecar() {
			if c.failedForGood(pod) {
				w.over = true
				return time.Time{}
			}
			return earliest(next, w.ensure(ctx, pod, c))
		}
		next = earliest(next, w.ensure(ctx, pod, c))
		if c.sidecar() && !c.running() {
			return next
		}
	}
	w.over = w.allDone(pod)
	return next
}

func (c *container) succeeded() bool {
	return c.state.Terminated != nil && c.state.Terminated.ExitCode == 0
}

func (c *container) failedForGood(pod *corev1.Pod) bool {
	return c.state.Terminated != nil && c.state.Terminated.ExitCode != 0 && !c.shouldRestart(pod)
}

// shouldRestart says whether a container that has ended is to run again.
func (c *container) shouldRestart(pod *corev1.Pod) bool {
	t := c.state.Terminated
	switch {
	case t == nil:
		return true
	case c.sidecar():
		return true
	case c.init:
		return t.ExitCode != 0 && pod.Spec.RestartPolicy != corev1.RestartPolicyNever
	case pod.Spec.RestartPolicy == corev1.RestartPolicyAlways:
		return true
	}
	return pod.Spec.RestartPolicy == corev1.RestartPolicyOnFailure && t.ExitCode != 0
}

// allDone says whether all ordinary containers have ended for good.
func (w *worker) allDone(pod *corev1.Pod) bool {
	for _, c := range w.containers {
		if !c.init && (c.state.Terminated == nil || c.shouldRestart(pod)) {
			return false
		}
	}
	return true
}

// ensure starts a container that is due, or returns when it will be.
func (w *worker) ensure(ctx context.Context, pod *corev1.Pod, c *container) time.Time {
	if c.running() || !c.shouldRestart(pod) {
		return time.Time{}
	}
	now := w.k.cfg.Clock.Now()
	if now.Before(c.creating.notBefore) {
		return c.creating.notBefore
	}
	if t := c.state.Terminated; t != nil {
		c.last = c.state
		w.backOff(pod, c, t)
	}
	if now.Before(c.restart.notBefore) {
		return c.restart.notBefore
	}
	if now.Before(c.pull.notBefore) {
		return w.waitForPull(pod, c, now)
	}
	w.startContainer(ctx, pod, c)
	return earliest(earliest(c.creating.notBefore, c.pull.notBefore), c.restart.notBefore)
}

// backOff decides when an ended container runs again: at once the first time,
// then after 10 seconds, 20, 40, up to five minutes; a run of ten minutes
// clears the record. (k8s.io/client-go/util/flowcontrol, as kubelets use it.)
func (w *worker) backOff(pod *corev1.Pod, c *container, t *corev1.ContainerStateTerminated) {
	limits := w.k.cfg.Backoff
	if t.FinishedAt.Sub(t.StartedAt.Time) > 2*limits.Max {
		c.restart = backoffState{}
	}
	if c.restart.delay == 0 {
		c.restart = backoffState{delay: limits.Base / 2} // the next one is Base
		c.wait(reasonCreating, "")
		return
	}
	c.restart.fail(t.FinishedAt.Time, limits)
	if !w.k.cfg.Clock.Now().Before(c.restart.notBefore) {
		c.wait(reasonCreating, "")
		return
	}
	c.wait(reasonCrashLoop, fmt.Sprintf("back-off %s restarting failed container=%s pod=%s", c.restart.delay, c.spec.Name, desc(pod)))
	w.event(pod, c, corev1.EventTypeWarning, "BackOff", "Back-off restarting failed container %s in pod %s", c.spec.Name, desc(pod))
}

// waitForPull is the time after a failed pull: for a moment the reason stays
// ErrImagePull, so that it is seen, then it is ImagePullBackOff.
func (w *worker) waitForPull(pod *corev1.Pod, c *container, now time.Time) time.Time {
	turn := c.pull.notBefore.Add(-c.pull.delay * 3 / 4)
	if now.Before(turn) {
		return turn
	}
	if c.state.Waiting != nil && c.state.Waiting.Reason != reasonPullBackOff {
		message := fmt.Sprintf("Back-off pulling image %q: %s: %s", c.spec.Image, reasonPull, c.pullErr)
		c.wait(reasonPullBackOff, message)
		w.event(pod, c, corev1.EventTypeNormal, "BackOff", "Back-off pulling image %q", c.spec.Image)
		w.event(pod, c, corev1.EventTypeWarning, "Failed", "Error: %s", reasonPullBackOff)
	}
	return c.pull.notBefore
}

// event records an event of a container, or of the pod if c is nil.
func (w *worker) event(pod *corev1.Pod, c *container, kind, reason, format string, args ...any) {
	ref := &corev1.ObjectReference{
		Kind: "Pod", APIVersion: "v1", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion,
	}
	if c != nil {
		list := "containers"
		if c.init {
			list = "initContainers"
		}
		ref.FieldPath = fmt.Sprintf("spec.%s{%s}", list, c.spec.Name)
	}
	w.k.recorder.Eventf(ref, kind, reason, format, args...)
}

// startContainer pulls the image, makes the container and starts it.
func (w *worker) startContainer(ctx context.Context, pod *corev1.Pod, c *container) {
	if !w.pullImage(pod, c) {
		return
	}
	attempt := c.restarts
	if c.started {
		attempt++
	}
	spec, err := w.containerSpec(ctx, pod, c, attempt)
	if err != nil {
		w.notMade(pod, c, err)
		return
	}
	id := containerID(w.uid, spec.LogPath)
	var run *runtime.Container
	run, err = w.k.cfg.Runtime.StartContainer(ctx, w.sandbox, spec, func(status runtime.ExitStatus) {
		w.exited(exit{c: c, status: status})
	})
	if err != nil {
		w.notStarted(pod, c, id, attempt, err)
		return
	}
	w.mu.Lock()
	c.run = run
	if c.log != nil {
		if c.previous != nil {
			_ = c.previous.Remove() // the log of the run before the last is not kept
		}
		c.previous = c.log
	}
	c.log = run.Log
	w.mu.Unlock()
	c.id, c.started, c.restarts, c.creating = id, true, attempt, backoffState{}
	c.state = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(w.k.cfg.Clock.Now())}}
	w.event(pod, c, corev1.EventTypeNormal, "Created", "Container created")
	w.event(pod, c, corev1.EventTypeNormal, "Started", "Container started")
}

// containerID is a runtime's: 64 hexadecimal digits.
func containerID(uid types.UID, run string) string {
	sum := sha256.Sum256([]byte(string(uid) + run))
	return "podlab://" + hex.EncodeToString(sum[:])
}

// pullImage looks the image up; what it says is what a kubelet says of a pull.
func (w *worker) pullImage(pod *corev1.Pod, c *container) bool {
	ref := c.spec.Image
	pull := c.spec.ImagePullPolicy == corev1.PullAlways
	began := w.k.cfg.Clock.Now()
	if _, err := image.Name(ref); err != nil {
		c.wait(reasonBadName, fmt.Sprintf("Failed to apply default image tag %q: %v", ref, err))
		w.event(pod, c, corev1.EventTypeWarning, "InspectFailed", "Failed to apply default image tag %q: %v", ref, err)
		w.event(pod, c, corev1.EventTypeWarning, "Failed", "Error: %s", reasonBadName)
		c.creating.fail(began, w.k.cfg.Backoff)
		return false
	}
	img, err := w.k.cfg.Images.Find(ref)
	if err != nil && c.spec.ImagePullPolicy == corev1.PullNever {
		message := fmt.Sprintf("Container image %q is not present with pull policy of Never", ref)
		c.wait(reasonNeverPull, message)
		w.event(pod, c, corev1.EventTypeWarning, reasonNeverPull, "%s", message)
		w.event(pod, c, corev1.EventTypeWarning, "Failed", "Error: %s", reasonNeverPull)
		c.creating.fail(began, w.k.cfg.Backoff)
		return false
	}
	if err != nil || pull {
		w.event(pod, c, corev1.EventTypeNormal, "Pulling", "Pulling image %q", ref)
	}
	if err != nil {
		c.pullErr = err.Error()
		c.wait(reasonPull, c.pullErr)
		w.event(pod, c, corev1.EventTypeWarning, "Failed", "Failed to pull image %q: %v", ref, err)
		w.event(pod, c, corev1.EventTypeWarning, "Failed", "Error: %s", reasonPull)
		c.pull.fail(began, w.k.cfg.Backoff)
		c.pull.notBefore = began.Add(c.pull.delay)
		return false
	}
	if pull {
		took := w.k.cfg.Clock.Since(began).Round(time.Microsecond)
		w.event(pod, c, corev1.EventTypeNormal, "Pulled", "Successfully pulled image %q in %v (%v including waiting).", ref, took, took)
	} else {
		w.event(pod, c, corev1.EventTypeNormal, "Pulled", "Container image %q already present on machine", ref)
	}
	c.image, c.imageID, c.pull = img, "podlab.io/"+img.Names[0]+"@"+img.Digest(), backoffState{}
	return true
}

// notMade is a container that could not even be described to the runtime.
func (w *worker) notMade(pod *corev1.Pod, c *container, err error) {
	reason := reasonCreate
	if ce := (*configError)(nil); errors.As(err, &ce) {
		reason = reasonConfig
	}
	c.wait(reason, err.Error())
	w.event(pod, c, corev1.EventTypeWarning, "Failed", "Error: %v", err)
	c.creating.fail(w.k.cfg.Clock.Now(), w.k.cfg.Backoff)
}

// notStarted is a container that the runtime could not start. When only its
// program could not be run, it counts as a run that ended, as in Kubernetes.
func (w *worker) notStarted(pod *corev1.Pod, c *container, id string, attempt int32, err error) {
	step := (*runtime.StepError)(nil)
	if !errors.As(err, &step) || !step.IsExec() {
		w.notMade(pod, c, err)
		return
	}
	message := fmt.Sprintf("failed to start container %q: %v", c.spec.Name, err)
	w.event(pod, c, corev1.EventTypeNormal, "Created", "Container created")
	w.event(pod, c, corev1.EventTypeWarning, "Failed", "Error: %s", message)
	c.id, c.started, c.restarts = id, true, attempt
	now := w.k.cfg.Clock.Now()
	c.state = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		ExitCode: 128, Reason: "StartError", Message: message, FinishedAt: metav1.NewTime(now), StartedAt: metav1.NewTime(now), ContainerID: id,
	}}
	w.poke() // to back off
}

// containerEnded records a container's end.
func (w *worker) containerEnded(e exit) {
	c := e.c
	// A container runtime reports 128 + signal as the exit code, and no signal.
	t := &corev1.ContainerStateTerminated{ExitCode: int32(e.status.Code), Reason: "Completed", FinishedAt: metav1.NewTime(e.status.At), ContainerID: c.id}
	if t.ExitCode != 0 {
		t.Reason = "Error"
	}
	if c.state.Running != nil {
		t.StartedAt = c.state.Running.StartedAt
	}
	c.state = corev1.ContainerState{Terminated: t}
	w.k.cfg.Runtime.RemoveContainer(c.run)
}
