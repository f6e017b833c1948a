package scheduler_test

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podlab/lab"
	"podlab/lab/kube"
	"podlab/lab/kube/scheduler"
)

// cluster is an API with two nodes and a scheduler.
//
//	node1 (disk=ssd)   node2 (taint dedicated=db)
type cluster struct {
	*kube.Server
	steps chan lab.StepEvent
}

func start(t *testing.T) cluster {
	t.Helper()
	s, err := kube.New(kube.Config{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := cluster{s, make(chan lab.StepEvent, 16)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		scheduler.Run(ctx, scheduler.Config{Core: s.Core(), OnStep: func(e lab.StepEvent) { c.steps <- e }})
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func (c cluster) node(t *testing.T, name string, change func(*corev1.Node)) {
	t.Helper()
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"kubernetes.io/hostname": name}}}
	n.Status.Allocatable = corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("1"), corev1.ResourceMemory: resource.MustParse("1Gi"), corev1.ResourcePods: resource.MustParse("110"),
	}
	if change != nil {
		change(n)
	}
	if _, err := c.Core().Nodes().Create(t.Context(), n, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (c cluster) pod(t *testing.T, name string, change func(*corev1.PodSpec)) {
	t.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "nginx"}}}}
	if change != nil {
		change(&p.Spec)
	}
	if _, err := c.Core().Pods("default").Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// event waits for the Event about the pod with the reason and returns its message.
func (c cluster) event(t *testing.T, pod, reason string) string {
	t.Helper()
	w, err := c.Core().Events("default").Watch(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=" + pod + ",reason=" + reason})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	e, ok := (<-w.ResultChan()).Object.(*corev1.Event)
	if !ok {
		t.Fatalf("no event %s came", reason)
	}
	if e.Source.Component != "default-scheduler" {
		t.Errorf("the event's component is %q", e.Source.Component)
	}
	return e.Message
}

func TestScheduled(t *testing.T) {
	c := start(t)
	c.node(t, "node1", nil)
	c.pod(t, "pod-a", nil)
	if got, want := c.event(t, "pod-a", "Scheduled"), "Successfully assigned default/pod-a to node1"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	step := <-c.steps
	if step.Pod != "default/pod-a" || step.Course != "create" || step.Number != 1 || step.Detail != "node1" || step.StartedAt.IsZero() {
		t.Errorf("step is %+v", step)
	}
	p, err := c.Core().Pods("default").Get(t.Context(), "pod-a", metav1.GetOptions{})
	if err != nil || p.Spec.NodeName != "node1" {
		t.Errorf("the pod is on %q, %v", p.Spec.NodeName, err)
	}
}

func TestSpread(t *testing.T) {
	c := start(t)
	c.node(t, "node1", nil)
	c.node(t, "node2", nil)
	count := map[string]int{}
	for _, name := range []string{"a", "b", "c", "d"} {
		c.pod(t, name, nil)
		step := <-c.steps
		count[step.Detail]++
	}
	if count["node1"] != 2 || count["node2"] != 2 {
		t.Errorf("pods are spread as %v, want two on each node", count)
	}
}

func TestFailedThenScheduled(t *testing.T) {
	c := start(t)
	c.pod(t, "early", nil)
	if got, want := c.event(t, "early", "FailedScheduling"), "no nodes available to schedule pods"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	c.node(t, "node1", nil)
	if got := c.event(t, "early", "Scheduled"); !strings.HasSuffix(got, "to node1") {
		t.Errorf("got %q", got)
	}
}

func TestRefusals(t *testing.T) {
	tests := []struct {
		name string
		spec func(*corev1.PodSpec)
		want string
	}{
		{"selector", func(s *corev1.PodSpec) { s.NodeSelector = map[string]string{"disk": "tape"} },
			"0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated taint(s). " +
				"preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."},
		{"cpu", func(s *corev1.PodSpec) {
			s.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("3")}
			s.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
		},
			"0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod."},
	}
	c := start(t)
	c.node(t, "node1", func(n *corev1.Node) { n.Labels["disk"] = "ssd" })
	c.node(t, "node2", func(n *corev1.Node) {
		n.Spec.Taints = []corev1.Taint{{Key: "dedicated", Value: "db", Effect: corev1.TaintEffectNoSchedule}}
	})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c.pod(t, tt.name, tt.spec)
			if got := c.event(t, tt.name, "FailedScheduling"); got != tt.want {
				t.Errorf("\n got %q\nwant %q", got, tt.want)
			}
		})
	}
}
