package agent

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"podlab/lab"
)

// mirror copies the pods and the Events of the lab's API into the lab's log,
// so that one ordered stream tells the whole of the lab.
type mirror struct {
	api     corev1client.CoreV1Interface
	publish func(lab.Event)
	// changed, if set, is called after each change of the pods.
	changed func(map[string]lab.Pod)

	pods map[string]lab.Pod // by "namespace/name"
}

// relistWait is the pause before a broken watch is taken up again.
const relistWait = 100 * time.Millisecond

// run mirrors until ctx ends.
func (m *mirror) run(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.follow(ctx, m.listEvents, m.api.Events("").Watch, m.event)
	}()
	m.follow(ctx, m.listPods, m.api.Pods("").Watch, m.pod)
	<-done
}

// follow lists, then watches from there, again whenever the watch breaks.
func (m *mirror) follow(ctx context.Context,
	list func(context.Context) (string, error),
	open func(context.Context, metav1.ListOptions) (watch.Interface, error),
	change func(watch.Event),
) {
	for ctx.Err() == nil {
		if err := followOnce(ctx, list, open, change); err != nil && ctx.Err() == nil {
			select {
			case <-time.After(relistWait):
			case <-ctx.Done():
			}
		}
	}
}

func followOnce(ctx context.Context,
	list func(context.Context) (string, error),
	open func(context.Context, metav1.ListOptions) (watch.Interface, error),
	change func(watch.Event),
) error {
	version, err := list(ctx)
	if err != nil {
		return err
	}
	w, err := open(ctx, metav1.ListOptions{ResourceVersion: version})
	if err != nil {
		return fmt.Errorf("cannot watch: %w", err)
	}
	defer w.Stop()
	for {
		select {
		case e, ok := <-w.ResultChan():
			if !ok {
				return errors.New("the watch has ended")
			}
			if e.Type == watch.Error {
				return apierrors.FromObject(e.Object)
			}
			change(e)
		case <-ctx.Done():
			return nil
		}
	}
}

// listPods publishes what differs from what was known: at the start all pods,
// after a broken watch those that changed or went meanwhile.
func (m *mirror) listPods(ctx context.Context) (string, error) {
	l, err := m.api.Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", fmt.Errorf("cannot list pods: %w", err)
	}
	there := map[string]bool{}
	for i := range l.Items {
		m.set(podView(&l.Items[i]))
		there[l.Items[i].Namespace+"/"+l.Items[i].Name] = true
	}
	for key, p := range m.pods {
		if !there[key] {
			m.gone(p)
		}
	}
	return l.ResourceVersion, nil
}

func (m *mirror) pod(e watch.Event) {
	p, ok := e.Object.(*corev1.Pod)
	switch {
	case !ok:
	case e.Type == watch.Deleted:
		m.gone(podView(p))
	default:
		m.set(podView(p))
	}
}

func (m *mirror) set(p lab.Pod) {
	key := p.Namespace + "/" + p.Name
	if old, ok := m.pods[key]; ok && reflect.DeepEqual(old, p) {
		return // a change that neither the page nor a check can see
	}
	if m.pods == nil {
		m.pods = map[string]lab.Pod{}
	}
	m.pods[key] = p
	m.publish(lab.Event{Kind: lab.EventPodSet, NS: p.NetNS, Pod: &p})
	m.tell()
}

func (m *mirror) gone(p lab.Pod) {
	delete(m.pods, p.Namespace+"/"+p.Name)
	m.publish(lab.Event{Kind: lab.EventPodGone, Pod: &p})
	m.tell()
}

func (m *mirror) tell() {
	if m.changed != nil {
		m.changed(m.pods)
	}
}

// listEvents publishes none of the old Events: the log has them, or they are
// of a time before it.
func (m *mirror) listEvents(ctx context.Context) (string, error) {
	l, err := m.api.Events("").List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return "", fmt.Errorf("cannot list events: %w", err)
	}
	return l.ResourceVersion, nil
}

func (m *mirror) event(e watch.Event) {
	ev, ok := e.Object.(*corev1.Event)
	if !ok || e.Type == watch.Deleted {
		return
	}
	component := ev.Source.Component
	if component == "" {
		component = ev.ReportingController
	}
	object := ev.InvolvedObject.Kind + "/" + ev.InvolvedObject.Name
	if ns := ev.InvolvedObject.Namespace; ns != "" {
		object = ev.InvolvedObject.Kind + "/" + ns + "/" + ev.InvolvedObject.Name
	}
	m.publish(lab.Event{Kind: lab.EventKube, Kube: &lab.KubeEvent{
		Type: ev.Type, Reason: ev.Reason, Message: ev.Message,
		Object: object, Component: component, Count: max(ev.Count, 1),
	}})
}
