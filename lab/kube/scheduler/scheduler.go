// Package scheduler gives pods their nodes. It is the real scheduler's outline
// on one page: filters that say why a node does not do, a score, a binding, and
// the same Events and conditions in the same words.
//
// Run serves until its context ends and returns when its goroutines have. It
// calls the API only; it is the only one who binds pods.
package scheduler

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"

	"podlab/lab"
)

// Name is the scheduler's, in pods' spec.schedulerName and in Events.
const Name = corev1.DefaultSchedulerName

// Config of a scheduler.
type Config struct {
	Core corev1client.CoreV1Interface
	// OnStep is told of step 1 of a pod's creation; nil is fine.
	OnStep func(lab.StepEvent)
	// Log takes what goes wrong; nil is slog.Default.
	Log *slog.Logger
}

// scheduler is one run.
type scheduler struct {
	Config
	pods, nodes cache.Store
	wake        chan struct{}
	// bound are pods whose binding the watch has not shown yet.
	bound map[types.UID]string
	// told is the last failure told of a pod.
	told map[types.UID]string
	// since is when a pod was first seen without a node.
	since map[types.UID]time.Time
}

// Run schedules pods until ctx ends.
func Run(ctx context.Context, cfg Config) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	s := &scheduler{
		Config: cfg, wake: make(chan struct{}, 1),
		bound: map[types.UID]string{}, told: map[types.UID]string{}, since: map[types.UID]time.Time{},
	}
	pods, nodes := cfg.Core.Pods(metav1.NamespaceAll), cfg.Core.Nodes()
	var podInformer, nodeInformer cache.Controller
	s.pods, podInformer = s.informer(&corev1.Pod{},
		func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return pods.List(ctx, o) },
		pods.Watch)
	s.nodes, nodeInformer = s.informer(&corev1.Node{},
		func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return nodes.List(ctx, o) },
		nodes.Watch)

	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { podInformer.RunWithContext(ctx) })
	wg.Go(func() { nodeInformer.RunWithContext(ctx) })
	// Not cache.WaitForCacheSync, which looks only every 100 ms: a lab that
	// starts would wait for it.
	for _, informer := range []cache.Controller{podInformer, nodeInformer} {
		select {
		case <-informer.HasSyncedChecker().Done():
		case <-ctx.Done():
			return
		}
	}
	s.poke()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
			s.round(ctx)
		}
	}
}

func (s *scheduler) informer(of runtime.Object, list cache.ListWithContextFunc, watcher func(context.Context, metav1.ListOptions) (watch.Interface, error)) (cache.Store, cache.Controller) {
	return cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: &cache.ListWatch{ListWithContextFunc: list, WatchFuncWithContext: watcher},
		ObjectType:    of,
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { s.poke() },
			UpdateFunc: func(any, any) { s.poke() },
			DeleteFunc: func(any) { s.poke() },
		},
	})
}

func (s *scheduler) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// round tries every pod that waits for a node, oldest first.
func (s *scheduler) round(ctx context.Context) {
	all := objects[*corev1.Pod](s.pods)
	nodes := objects[*corev1.Node](s.nodes)
	slices.SortFunc(nodes, func(a, b *corev1.Node) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(all, func(a, b *corev1.Pod) int {
		if c := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); c != 0 {
			return c
		}
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	s.forget(all)
	load := s.load(all)
	for _, pod := range all {
		if !waits(pod) || s.bound[pod.UID] != "" {
			continue
		}
		if s.since[pod.UID].IsZero() {
			s.since[pod.UID] = time.Now()
		}
		if node := s.schedule(ctx, pod, nodes, load); node != "" {
			load[node] = append(load[node], pod)
		}
		if ctx.Err() != nil {
			return
		}
	}
}

func waits(p *corev1.Pod) bool {
	return p.Spec.NodeName == "" && p.DeletionTimestamp == nil && p.Spec.SchedulerName == Name &&
		len(p.Spec.SchedulingGates) == 0 && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed
}

// load is which pods each node has, those just bound included.
func (s *scheduler) load(all []*corev1.Pod) map[string][]*corev1.Pod {
	load := map[string][]*corev1.Pod{}
	for _, p := range all {
		node := p.Spec.NodeName
		if node == "" {
			node = s.bound[p.UID]
		}
		if node != "" && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed {
			load[node] = append(load[node], p)
		}
	}
	return load
}

// forget drops what is remembered of pods that are gone or placed.
func (s *scheduler) forget(all []*corev1.Pod) {
	waiting := map[types.UID]bool{}
	for _, p := range all {
		if p.Spec.NodeName == "" {
			waiting[p.UID] = true
		}
	}
	for uid := range s.bound {
		if !waiting[uid] {
			delete(s.bound, uid)
		}
	}
	for uid := range s.since {
		if !waiting[uid] {
			delete(s.since, uid)
			delete(s.told, uid)
		}
	}
}

// schedule binds the pod to the best node, or says why there is none.
func (s *scheduler) schedule(ctx context.Context, pod *corev1.Pod, nodes []*corev1.Node, load map[string][]*corev1.Pod) string {
	var fit []*corev1.Node
	refused := map[string]refusal{}
	for _, n := range nodes {
		if r, ok := refuse(pod, n, load[n.Name]); ok {
			refused[n.Name] = r
			continue
		}
		fit = append(fit, n)
	}
	if len(fit) == 0 {
		s.fail(ctx, pod, unschedulable(len(nodes), refused))
		return ""
	}
	best := slices.MaxFunc(fit, func(a, b *corev1.Node) int {
		if c := score(pod, a, load[a.Name]) - score(pod, b, load[b.Name]); c != 0 {
			return c
		}
		return strings.Compare(b.Name, a.Name) // the first by name
	})
	if err := s.bind(ctx, pod, best.Name); err != nil {
		if ctx.Err() == nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			s.Log.Error("cannot bind pod", "pod", pod.Namespace+"/"+pod.Name, "node", best.Name, "err", err)
		}
		return ""
	}
	s.bound[pod.UID] = best.Name
	return best.Name
}

// bind tells of the choice and then makes it known to the API: in this order,
// since the kubelet begins with step 2 as soon as the API knows.
func (s *scheduler) bind(ctx context.Context, pod *corev1.Pod, node string) error {
	name := pod.Namespace + "/" + pod.Name
	if s.OnStep != nil {
		started := s.since[pod.UID]
		s.OnStep(lab.StepEvent{
			Pod: name, Course: "create", Number: 1, Name: "scheduler chooses a node",
			StartedAt: started.UTC(), Micros: time.Since(started).Microseconds(), Detail: node,
		})
	}
	err := s.Core.Pods(pod.Namespace).Bind(ctx, &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: node},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	s.event(ctx, pod, corev1.EventTypeNormal, "Scheduled", fmt.Sprintf("Successfully assigned %s to %s", name, node))
	return nil
}

// fail tells once what keeps the pod waiting: an Event and its PodScheduled
// condition.
func (s *scheduler) fail(ctx context.Context, pod *corev1.Pod, message string) {
	if s.told[pod.UID] == message {
		return
	}
	s.told[pod.UID] = message
	s.event(ctx, pod, corev1.EventTypeWarning, "FailedScheduling", message)
	latest, err := s.Core.Pods(pod.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
	if err != nil || latest.UID != pod.UID || latest.Spec.NodeName != "" {
		return
	}
	condition := corev1.PodCondition{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable,
		Message: message, LastTransitionTime: metav1.Now(),
	}
	latest.Status.Conditions = slices.DeleteFunc(latest.Status.Conditions, func(c corev1.PodCondition) bool {
		if c.Type == condition.Type && c.Status == condition.Status {
			condition.LastTransitionTime = c.LastTransitionTime
		}
		return c.Type == condition.Type
	})
	latest.Status.Conditions = append(latest.Status.Conditions, condition)
	if _, err := s.Core.Pods(pod.Namespace).UpdateStatus(ctx, latest, metav1.UpdateOptions{}); err != nil &&
		ctx.Err() == nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		s.Log.Error("cannot say that a pod waits", "pod", pod.Namespace+"/"+pod.Name, "err", err)
	}
}

func (s *scheduler) event(ctx context.Context, pod *corev1.Pod, kind, reason, message string) {
	now := time.Now()
	_, err := s.Core.Events(pod.Namespace).Create(ctx, &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s.%x", pod.Name, now.UnixNano()), Namespace: pod.Namespace},
		InvolvedObject: corev1.ObjectReference{
			Kind: "Pod", APIVersion: "v1", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion,
		},
		Type: kind, Reason: reason, Message: message, Count: 1,
		FirstTimestamp: metav1.NewTime(now), LastTimestamp: metav1.NewTime(now),
		Source: corev1.EventSource{Component: Name}, ReportingController: Name,
	}, metav1.CreateOptions{})
	if err != nil && ctx.Err() == nil && !apierrors.IsNotFound(err) && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		s.Log.Error("cannot write event", "pod", pod.Namespace+"/"+pod.Name, "reason", reason, "err", err)
	}
}

func objects[T any](store cache.Store) []T {
	var out []T
	for _, o := range store.List() {
		if t, ok := o.(T); ok {
			out = append(out, t)
		}
	}
	return out
}
