package kubelet

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// report brings the pod's status in the API up to date, if it is not.
func (w *worker) report(ctx context.Context, pod *corev1.Pod) {
	status := w.status(pod)
	if w.sent != nil && equality.Semantic.DeepEqual(*w.sent, status) {
		return
	}
	before := pod.Status
	if w.sent != nil {
		before = *w.sent
	}
	patch, err := statusPatch(pod.UID, before, status)
	if err == nil {
		_, err = w.k.cfg.Client.Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	}
	if err == nil || apierrors.IsNotFound(err) || otherPod(err) {
		w.sent = &status
		return
	}
	if ctx.Err() == nil {
		w.k.cfg.Log.Warn("cannot report a pod's status", "pod", w.name, "err", err)
	}
}

// otherPod says whether the name belongs to another pod by now: a changed UID
// is a conflict or an immutable field, depending on who notices first.
func otherPod(err error) bool {
	return apierrors.IsConflict(err) || apierrors.IsInvalid(err) && strings.Contains(err.Error(), "metadata.uid")
}

// statusPatch is what leads from one status to the next, and touches nothing
// else: the worker's copy of the pod may be behind what it has sent itself.
func statusPatch(uid types.UID, from, to corev1.PodStatus) ([]byte, error) {
	before, err := json.Marshal(corev1.Pod{Status: from})
	if err != nil {
		return nil, err
	}
	after, err := json.Marshal(corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: uid}, Status: to}) // a precondition
	if err != nil {
		return nil, err
	}
	return strategicpatch.CreateTwoWayMergePatch(before, after, corev1.Pod{})
}

// status is the pod's as its containers are now.
func (w *worker) status(pod *corev1.Pod) corev1.PodStatus {
	s := *pod.Status.DeepCopy()
	s.ObservedGeneration = pod.Generation
	s.HostIP, s.HostIPs = "", nil
	for i, a := range w.k.node.Addresses {
		if i == 0 {
			s.HostIP = a.String()
		}
		s.HostIPs = append(s.HostIPs, corev1.HostIP{IP: a.String()})
	}
	if len(w.ips) > 0 {
		s.PodIP, s.PodIPs = w.ips[0], nil
		for _, ip := range w.ips {
			s.PodIPs = append(s.PodIPs, corev1.PodIP{IP: ip})
		}
	}
	if s.StartTime == nil {
		now := metav1.NewTime(w.born).Rfc3339Copy()
		s.StartTime = &now
	}
	s.InitContainerStatuses, s.ContainerStatuses = nil, nil
	for _, c := range w.containers {
		if c.init {
			s.InitContainerStatuses = append(s.InitContainerStatuses, c.status())
		} else {
			s.ContainerStatuses = append(s.ContainerStatuses, c.status())
		}
	}
	if !isTerminal(s.Phase) {
		s.Phase = w.phase(pod)
	}
	if s.QOSClass == "" {
		s.QOSClass = corev1.PodQOSBestEffort
	}
	w.conditions(pod, &s)
	return s
}

func (c *container) status() corev1.ContainerStatus {
	started := c.running()
	st := corev1.ContainerStatus{
		Name: c.spec.Name, Image: c.spec.Image, ImageID: c.imageID, ContainerID: c.id, RestartCount: c.restarts,
		State: c.state, LastTerminationState: c.last, Started: &started, Ready: c.running(),
	}
	if c.init && !c.sidecar() {
		st.Ready = c.succeeded()
	}
	return st
}

// phase follows a kubelet's getPhase.
func (w *worker) phase(pod *corev1.Pod) corev1.PodPhase {
	var waiting, running, stopped, failed, pendingInit, failedInit int
	for _, c := range w.containers {
		t := c.state.Terminated
		switch {
		case c.init && !c.sidecar():
			switch {
			case t == nil:
				pendingInit++
			case t.ExitCode != 0 && !c.shouldRestart(pod):
				failedInit++
			case t.ExitCode != 0:
				pendingInit++
			}
		case c.init:
		case c.running():
			running++
		case t != nil:
			stopped++
			if t.ExitCode != 0 {
				failed++
			}
		case c.last.Terminated != nil && c.started:
			stopped++ // it waits to be started again
		default:
			waiting++
		}
	}
	switch {
	case failedInit > 0:
		return corev1.PodFailed
	case pendingInit > 0 || waiting > 0:
		return corev1.PodPending
	case running > 0 || !w.allDone(pod):
		return corev1.PodRunning
	case failed > 0:
		return corev1.PodFailed
	}
	return corev1.PodSucceeded
}

// conditions sets the pod's conditions, keeping the time of those that did not
// change.
func (w *worker) conditions(pod *corev1.Pod, s *corev1.PodStatus) {
	set := func(kind corev1.PodConditionType, ok bool, reason, message string) {
		c := corev1.PodCondition{Type: kind, Status: corev1.ConditionFalse, Reason: reason, Message: message, ObservedGeneration: pod.Generation}
		if ok {
			c.Status = corev1.ConditionTrue
		}
		w.setCondition(s, c)
	}
	set(corev1.PodReadyToStartContainers, w.sandbox != nil, "", "")
	var notInit, notReady []string
	for _, c := range w.containers {
		switch {
		case c.init && !c.sidecar() && !c.succeeded(), c.sidecar() && !c.started:
			notInit = append(notInit, c.spec.Name)
		case (!c.init || c.sidecar()) && !c.running():
			notReady = append(notReady, c.spec.Name)
		}
	}
	switch {
	case s.Phase == corev1.PodSucceeded:
		set(corev1.PodInitialized, true, "PodCompleted", "")
	case len(notInit) > 0:
		set(corev1.PodInitialized, false, "ContainersNotInitialized", fmt.Sprintf("containers with incomplete status: [%s]", strings.Join(notInit, " ")))
	default:
		set(corev1.PodInitialized, true, "", "")
	}
	reason, message := "", ""
	switch {
	case s.Phase == corev1.PodSucceeded:
		reason = "PodCompleted"
	case s.Phase == corev1.PodFailed:
		reason = "PodFailed"
	case len(notReady) > 0:
		reason, message = "ContainersNotReady", fmt.Sprintf("containers with unready status: [%s]", strings.Join(notReady, " "))
	}
	set(corev1.ContainersReady, reason == "", reason, message)
	if reason == "" {
		if missing := missingGates(pod, s); missing != "" {
			reason, message = "ReadinessGatesNotReady", missing
		}
	}
	set(corev1.PodReady, reason == "", reason, message)
	for i := range s.Conditions {
		if s.Conditions[i].Type == corev1.PodScheduled {
			return
		}
	}
	set(corev1.PodScheduled, true, "", "")
}

// missingGates says which readiness gates are not true.
func missingGates(pod *corev1.Pod, s *corev1.PodStatus) string {
	var out []string
	for _, g := range pod.Spec.ReadinessGates {
		ok := false
		for _, c := range s.Conditions {
			ok = ok || c.Type == g.ConditionType && c.Status == corev1.ConditionTrue
		}
		if !ok {
			out = append(out, fmt.Sprintf("the status of pod readiness gate %q is not \"True\"", g.ConditionType))
		}
	}
	return strings.Join(out, ", ")
}

func (w *worker) setCondition(s *corev1.PodStatus, c corev1.PodCondition) {
	c.LastTransitionTime = metav1.NewTime(w.k.cfg.Clock.Now()).Rfc3339Copy()
	for _, old := range [][]corev1.PodCondition{s.Conditions, w.sentConditions()} {
		for _, o := range old {
			if o.Type == c.Type && o.Status == c.Status {
				c.LastTransitionTime, c.LastProbeTime = o.LastTransitionTime, o.LastProbeTime
			}
		}
	}
	for i := range s.Conditions {
		if s.Conditions[i].Type == c.Type {
			s.Conditions[i] = c
			return
		}
	}
	s.Conditions = append(s.Conditions, c)
}

func (w *worker) sentConditions() []corev1.PodCondition {
	if w.sent == nil {
		return nil
	}
	return w.sent.Conditions
}
