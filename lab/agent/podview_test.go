package agent

import (
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podlab/lab"
)

func waiting(reason string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}
}

func ended(code int32, reason string) corev1.ContainerState {
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: reason}}
}

var running = corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}

func TestPodStatusIsKubectls(t *testing.T) {
	statuses := func(s ...corev1.ContainerState) (out []corev1.ContainerStatus) {
		for _, st := range s {
			out = append(out, corev1.ContainerStatus{State: st, Ready: st.Running != nil})
		}
		return out
	}
	now := metav1.Now()
	for _, tc := range []struct {
		name string
		pod  corev1.Pod
		want string
	}{
		{"not placed", corev1.Pod{Status: corev1.PodStatus{Phase: "Pending"}}, "Pending"},
		{"creating", corev1.Pod{Status: corev1.PodStatus{Phase: "Pending", ContainerStatuses: statuses(waiting("ContainerCreating"))}}, "ContainerCreating"},
		{"first bad one wins", corev1.Pod{Status: corev1.PodStatus{Phase: "Running", ContainerStatuses: statuses(running, waiting("ErrImagePull"), waiting("CrashLoopBackOff"))}}, "ErrImagePull"},
		{"all run", corev1.Pod{Status: corev1.PodStatus{Phase: "Running", ContainerStatuses: statuses(running, running)}}, "Running"},
		{"one completed", corev1.Pod{Status: corev1.PodStatus{Phase: "Running", ContainerStatuses: statuses(ended(0, "Completed"), running)}}, "NotReady"},
		{"no reason", corev1.Pod{Status: corev1.PodStatus{Phase: "Failed", ContainerStatuses: statuses(ended(3, ""))}}, "ExitCode:3"},
		{"evicted", corev1.Pod{Status: corev1.PodStatus{Phase: "Failed", Reason: "Evicted"}}, "Evicted"},
		{"init runs", corev1.Pod{
			Spec:   corev1.PodSpec{InitContainers: make([]corev1.Container, 2)},
			Status: corev1.PodStatus{Phase: "Pending", InitContainerStatuses: statuses(ended(0, "Completed"), corev1.ContainerState{Running: running.Running})[:1], ContainerStatuses: statuses(waiting("PodInitializing"))},
		}, "PodInitializing"},
		{"init fails", corev1.Pod{Status: corev1.PodStatus{Phase: "Pending", InitContainerStatuses: statuses(ended(1, "Error"))}}, "Init:Error"},
		{"terminating", corev1.Pod{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &now}, Status: corev1.PodStatus{Phase: "Running", ContainerStatuses: statuses(running)}}, "Terminating"},
	} {
		if got := podStatus(&tc.pod); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestPodViewShowsEveryContainerFromTheStart(t *testing.T) {
	code := int32(137)
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "u"},
		Spec: corev1.PodSpec{
			NodeName:   "node1",
			Containers: []corev1.Container{{Name: "a", Image: "nginx", Ports: []corev1.ContainerPort{{ContainerPort: 80}}}, {Name: "b", Image: "busybox"}},
		},
		Status: corev1.PodStatus{
			Phase: "Running", PodIPs: []corev1.PodIP{{IP: "10.244.1.10"}, {IP: "fd00::a"}},
			ContainerStatuses: []corev1.ContainerStatus{{
				Name: "a", RestartCount: 2, State: waiting("CrashLoopBackOff"),
				LastTerminationState: ended(code, "OOMKilled"),
			}},
		},
	}
	v := podView(p)
	want := []lab.Container{
		{Name: "a", Image: "nginx", State: "waiting", Reason: "CrashLoopBackOff", Restarts: 2, Ports: []int32{80}, ExitCode: &code},
		{Name: "b", Image: "busybox", State: "waiting"},
	}
	if !reflect.DeepEqual(v.Containers, want) {
		t.Errorf("containers %+v\nwant %+v", v.Containers, want)
	}
	if v.NetNS != "pod/default/web" || len(v.IPs) != 2 || v.Ready || v.Status != "CrashLoopBackOff" {
		t.Errorf("pod %+v", v)
	}
	p.Spec.HostNetwork = true
	if got := podView(p).NetNS; got != "node/node1" {
		t.Errorf("a pod on the host's network is in %q", got)
	}
}
