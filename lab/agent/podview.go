package agent

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"

	"podlab/lab"
)

// podView is a pod as the browser and the checks see it.
func podView(p *corev1.Pod) lab.Pod {
	v := lab.Pod{
		Namespace: p.Namespace, Name: p.Name, UID: string(p.UID), Node: p.Spec.NodeName,
		Phase: string(p.Status.Phase), Status: podStatus(p), Ready: podReady(p),
		IPs: []netip.Addr{}, Labels: p.Labels, Containers: []lab.Container{}, CreatedAt: p.CreationTimestamp.Time,
	}
	for _, ip := range p.Status.PodIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil {
			v.IPs = append(v.IPs, a)
		}
	}
	if len(v.IPs) > 0 {
		v.NetNS = podNamespaceID(p.Namespace, p.Name)
		if p.Spec.HostNetwork {
			v.NetNS = nodeNamespaceID(p.Spec.NodeName)
		}
	}
	v.Containers = appendContainers(v.Containers, p.Spec.InitContainers, p.Status.InitContainerStatuses, true)
	v.Containers = appendContainers(v.Containers, p.Spec.Containers, p.Status.ContainerStatuses, false)
	return v
}

func podNamespaceID(namespace, name string) lab.NamespaceID {
	return lab.NamespaceID("pod/" + namespace + "/" + name)
}

func nodeNamespaceID(node string) lab.NamespaceID { return lab.NamespaceID("node/" + node) }

func appendContainers(list []lab.Container, specs []corev1.Container, statuses []corev1.ContainerStatus, isInit bool) []lab.Container {
	for _, spec := range specs {
		c := lab.Container{Name: spec.Name, Image: spec.Image, State: "waiting", Init: isInit}
		for _, port := range spec.Ports {
			c.Ports = append(c.Ports, port.ContainerPort)
		}
		for _, st := range statuses {
			if st.Name == spec.Name {
				setContainerState(&c, st)
			}
		}
		list = append(list, c)
	}
	return list
}

func setContainerState(c *lab.Container, st corev1.ContainerStatus) {
	c.Ready, c.Restarts = st.Ready, int(st.RestartCount)
	switch {
	case st.State.Running != nil:
		c.State = "running"
	case st.State.Terminated != nil:
		t := st.State.Terminated
		c.State, c.Reason, c.Message, c.ExitCode = "terminated", t.Reason, t.Message, &t.ExitCode
	case st.State.Waiting != nil:
		c.Reason, c.Message = st.State.Waiting.Reason, st.State.Waiting.Message
		if last := st.LastTerminationState.Terminated; last != nil {
			c.ExitCode = &last.ExitCode
		}
	}
}

func podReady(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// podStatus is kubectl's STATUS column: the most telling reason there is, the
// init containers' first (k8s.io/kubernetes/pkg/printers/internalversion).
func podStatus(p *corev1.Pod) string {
	status := string(p.Status.Phase)
	if p.Status.Reason != "" {
		status = p.Status.Reason
	}
	if s, initialising := initStatus(p); initialising {
		status = s
	} else {
		running := false
		for i := len(p.Status.ContainerStatuses) - 1; i >= 0; i-- {
			c := p.Status.ContainerStatuses[i]
			if reason := stateReason(c.State); reason != "" {
				status = reason
			} else if c.Ready && c.State.Running != nil {
				running = true
			}
		}
		// A pod of which one container has completed and another runs is running.
		if status == "Completed" && running {
			status = "NotReady"
			if podReady(p) {
				status = "Running"
			}
		}
	}
	if p.DeletionTimestamp != nil {
		return "Terminating"
	}
	return status
}

// initStatus tells how far the init containers are, if they have not all ended well.
func initStatus(p *corev1.Pod) (string, bool) {
	for i, c := range p.Status.InitContainerStatuses {
		t := c.State.Terminated
		switch {
		case t != nil && t.ExitCode == 0, c.Started != nil && *c.Started && c.Ready:
			continue
		case t != nil:
			return "Init:" + stateReason(c.State), true
		case c.State.Waiting != nil && c.State.Waiting.Reason != "" && c.State.Waiting.Reason != "PodInitializing":
			return "Init:" + c.State.Waiting.Reason, true
		}
		return fmt.Sprintf("Init:%d/%d", i, len(p.Spec.InitContainers)), true
	}
	return "", false
}

// stateReason is why a container waits or how it ended, empty while it runs.
func stateReason(s corev1.ContainerState) string {
	switch {
	case s.Waiting != nil:
		return s.Waiting.Reason
	case s.Terminated == nil:
		return ""
	case s.Terminated.Reason != "":
		return s.Terminated.Reason
	case s.Terminated.Signal != 0:
		return fmt.Sprintf("Signal:%d", s.Terminated.Signal)
	}
	return fmt.Sprintf("ExitCode:%d", s.Terminated.ExitCode)
}
