package kubelet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podlab/lab"
)

// ending is a pod's termination under way.
type ending struct {
	began    time.Time
	asked    time.Time // when SIGTERM was sent
	deadline time.Time
	killed   bool
}

// end takes a pod down: SIGTERM, the grace period, SIGKILL, then its network
// and namespaces, and at last its object in the API.
func (w *worker) end(ctx context.Context, pod *corev1.Pod, gone bool) (time.Time, bool) {
	if w.ending == nil {
		w.ending = &ending{began: w.k.cfg.Clock.Now()}
		w.askToEnd(pod)
		if !gone {
			w.report(ctx, pod)
		}
	}
	e := w.ending
	// The grace period may be made shorter later, or the object removed by force.
	if limit := e.began.Add(gracePeriod(pod, gone)); e.deadline.IsZero() || limit.Before(e.deadline) {
		e.deadline = limit
	}
	if w.anyRunning() {
		if w.k.cfg.Clock.Now().Before(e.deadline) {
			return e.deadline, false
		}
		w.killAll()
		return time.Time{}, false // their ends wake the worker
	}
	detail := "all ended by themselves"
	if e.killed {
		detail = "SIGKILL when the grace period was over"
	}
	w.step("terminate", 2, "grace period", detail, e.asked, nil)
	if err := w.stopSandbox(w.k.cfg.Steps); err != nil {
		w.k.recorder.Eventf(pod, corev1.EventTypeWarning, "FailedKillPod", "error killing pod: %v", err)
	}
	w.k.cfg.Runtime.RemoveDir(w.dir())
	w.k.cfg.Runtime.RemoveDir(w.logDir())
	if gone {
		return time.Time{}, true
	}
	w.report(ctx, pod)
	return w.remove(ctx, pod)
}

// remove deletes the object for good: nothing of the pod is left.
func (w *worker) remove(ctx context.Context, pod *corev1.Pod) (time.Time, bool) {
	zero := int64(0)
	uid := pod.UID
	err := w.k.cfg.Client.Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &uid},
	})
	if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) || ctx.Err() != nil {
		return time.Time{}, true
	}
	w.k.cfg.Log.Warn("cannot remove a pod from the API", "pod", w.name, "err", err)
	return w.k.cfg.Clock.Now().Add(time.Second), false
}

// gracePeriod is how long the pod's processes have, counted from the deletion.
func gracePeriod(pod *corev1.Pod, gone bool) time.Duration {
	switch {
	case gone:
		return 0
	case pod.DeletionGracePeriodSeconds != nil:
		return time.Duration(*pod.DeletionGracePeriodSeconds) * time.Second
	case pod.Spec.TerminationGracePeriodSeconds != nil:
		return time.Duration(*pod.Spec.TerminationGracePeriodSeconds) * time.Second
	}
	return corev1.DefaultTerminationGracePeriodSeconds * time.Second
}

// askToEnd is step 1.
func (w *worker) askToEnd(pod *corev1.Pod) {
	var err error
	n := 0
	for _, c := range w.containers {
		if !c.running() {
			continue
		}
		n++
		w.event(pod, c, corev1.EventTypeNormal, "Killing", "Stopping container %s", c.spec.Name)
		err = errors.Join(err, c.run.Signal(stopSignal(c.spec, c.image)))
	}
	w.ending.asked = w.k.cfg.Clock.Now()
	w.step("terminate", 1, "SIGTERM", fmt.Sprintf("to %d containers", n), w.ending.began, err)
}

func (w *worker) anyRunning() bool {
	for _, c := range w.containers {
		if c.running() {
			return true
		}
	}
	return false
}

func (w *worker) killAll() {
	w.ending.killed = true
	for _, c := range w.containers {
		if c.running() {
			_ = c.run.Signal(unix.SIGKILL) // only fails if it has ended
		}
	}
}

// stopSandbox takes the network and the namespaces away: steps 3 to 8. It goes
// on despite errors, and is fine with a pod that has neither.
func (w *worker) stopSandbox(step func(lab.StepEvent)) error {
	tell := step != nil
	if !tell {
		step = func(lab.StepEvent) {}
	}
	began := w.k.cfg.Clock.Now()
	if tell && w.sandbox != nil {
		detail := "hostNetwork"
		if w.plugged {
			detail = fmt.Sprintf("%d were open", connections(w.sandbox.Process().PID()))
		}
		w.step("terminate", 3, "connections closed", detail, began, nil)
	}
	var err error
	if w.plugged || tell {
		err = w.k.cfg.Network.DelPod(context.Background(), w.ref(), step)
	}
	began = w.k.cfg.Clock.Now()
	if w.shown {
		err = errors.Join(err, w.k.cfg.Runtime.HideNetns(w.sandbox, w.k.cfg.Network.Netns(w.ref())))
	}
	if w.sandbox != nil {
		w.k.cfg.Runtime.StopPod(w.sandbox)
	}
	if w.ns != nil && !w.plugged {
		err = errors.Join(err, w.k.cfg.Network.DropPodNS(w.ns))
	}
	if tell {
		w.step("terminate", 8, "network namespace deleted", "", began, err)
	}
	w.sandbox, w.ns, w.plugged, w.shown = nil, nil, false, false
	return err
}

// finish ends a pod whose containers have all ended for good: its network goes,
// its status and logs stay.
func (w *worker) finish(ctx context.Context, pod *corev1.Pod) {
	w.over = true
	if w.sandbox == nil {
		return
	}
	w.report(ctx, pod)
	for _, c := range w.containers { // sidecars
		if c.running() {
			_ = c.run.Signal(unix.SIGKILL)
		}
	}
	if w.anyRunning() {
		return // their ends wake the worker
	}
	if err := w.stopSandbox(nil); err != nil {
		w.k.recorder.Eventf(pod, corev1.EventTypeWarning, "FailedKillPod", "error killing pod: %v", err)
	}
}
