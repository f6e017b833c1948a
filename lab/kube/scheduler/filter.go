package scheduler

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
	corehelpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
)

// refusal is why a node does not do for a pod.
type refusal struct {
	reasons []string
	// freeable is true where other pods' end could help.
	freeable bool
}

// refuse says why the pod cannot run on the node, by the first of the real
// scheduler's filters that refuses, in their order and words.
func refuse(pod *corev1.Pod, node *corev1.Node, there []*corev1.Pod) (refusal, bool) {
	logger := klog.Background()
	if node.Spec.Unschedulable && !corehelpers.TolerationsTolerateTaint(logger, pod.Spec.Tolerations, &corev1.Taint{
		Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule,
	}, false) {
		return refusal{reasons: []string{"node(s) were unschedulable"}}, true
	}
	if _, untolerated := corehelpers.FindMatchingUntoleratedTaint(logger, node.Spec.Taints, pod.Spec.Tolerations, func(t *corev1.Taint) bool {
		return t.Effect == corev1.TaintEffectNoSchedule || t.Effect == corev1.TaintEffectNoExecute
	}, false); untolerated {
		return refusal{reasons: []string{"node(s) had untolerated taint(s)"}}, true
	}
	if ok, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(node); err != nil || !ok {
		return refusal{reasons: []string{"node(s) didn't match Pod's node affinity/selector"}}, true
	}
	if portsTaken(pod, there) {
		return refusal{reasons: []string{"node(s) didn't have free ports for the requested pod ports"}, freeable: true}, true
	}
	if short := insufficient(pod, node, there); len(short) > 0 {
		return refusal{reasons: short, freeable: true}, true
	}
	return refusal{}, false
}

func portsTaken(pod *corev1.Pod, there []*corev1.Pod) bool {
	type port struct {
		number   int32
		protocol corev1.Protocol
	}
	taken := map[port]bool{}
	for _, p := range there {
		for _, c := range p.Spec.Containers {
			for _, cp := range c.Ports {
				if cp.HostPort > 0 {
					taken[port{cp.HostPort, cp.Protocol}] = true
				}
			}
		}
	}
	for _, c := range pod.Spec.Containers {
		for _, cp := range c.Ports {
			if cp.HostPort > 0 && taken[port{cp.HostPort, cp.Protocol}] {
				return true
			}
		}
	}
	return false
}

// insufficient says which resources the node lacks for the pod's requests.
func insufficient(pod *corev1.Pod, node *corev1.Node, there []*corev1.Pod) []string {
	var out []string
	if most, ok := node.Status.Allocatable[corev1.ResourcePods]; ok && int64(len(there)+1) > most.Value() {
		out = append(out, "Too many pods")
	}
	want := resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
	for name, w := range want {
		has, known := node.Status.Allocatable[name]
		if w.IsZero() || !known && !strings.Contains(string(name), "/") {
			continue
		}
		free := has.DeepCopy()
		for _, p := range there {
			free.Sub(requested(p, name))
		}
		if w.Cmp(free) > 0 {
			out = append(out, "Insufficient "+string(name))
		}
	}
	slices.Sort(out)
	return out
}

func requested(p *corev1.Pod, name corev1.ResourceName) resource.Quantity {
	return resourcehelper.PodRequests(p, resourcehelper.PodResourcesOptions{})[name]
}

// score prefers nodes that preferred affinity names, then the emptier one.
func score(pod *corev1.Pod, node *corev1.Node, there []*corev1.Pod) int {
	n := -len(there)
	if a := pod.Spec.Affinity; a != nil && a.NodeAffinity != nil {
		if terms, err := nodeaffinity.NewPreferredSchedulingTerms(a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution); err == nil {
			n += int(terms.Score(node)) * 1000
		}
	}
	return n
}

// unschedulable is the message of FitError in pkg/scheduler/framework/types.go.
func unschedulable(nodes int, refused map[string]refusal) string {
	if nodes == 0 {
		return "no nodes available to schedule pods"
	}
	why, preempt := map[string]int{}, map[string]int{}
	for _, r := range refused {
		for _, reason := range r.reasons {
			why[reason]++
		}
		if r.freeable {
			preempt["No preemption victims found for incoming pod"]++
		} else {
			preempt["Preemption is not helpful for scheduling"]++
		}
	}
	return fmt.Sprintf("%s preemption: %s", histogram(nodes, why), histogram(nodes, preempt))
}

func histogram(nodes int, why map[string]int) string {
	var parts []string
	for reason, n := range why {
		parts = append(parts, fmt.Sprintf("%d %s", n, reason))
	}
	slices.Sort(parts)
	return fmt.Sprintf("0/%d nodes are available: %s.", nodes, strings.Join(parts, ", "))
}
