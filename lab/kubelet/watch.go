package kubelet

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// retryWatch is the pause after a failed list or watch; in one process that is
// the start or the end of the API.
const retryWatch = 500 * time.Millisecond

// run lists and watches the node's pods until ctx ends, and then waits for the
// workers.
func (k *Kubelet) run(ctx context.Context) {
	defer k.wg.Wait()
	for ctx.Err() == nil {
		err := k.follow(ctx)
		if err == nil || ctx.Err() != nil {
			continue
		}
		k.cfg.Log.Warn("cannot watch pods", "node", k.node.Name, "err", err)
		select {
		case <-k.cfg.Clock.After(retryWatch):
		case <-ctx.Done():
		}
	}
}

var errWatchEnded = errors.New("the watch could not go on")

// follow lists once and then watches, until the watch ends.
func (k *Kubelet) follow(ctx context.Context) error {
	pods := k.cfg.Client.Pods(metav1.NamespaceAll)
	selector := fields.OneTermEqualSelector("spec.nodeName", k.node.Name).String()
	list, err := pods.List(ctx, metav1.ListOptions{FieldSelector: selector})
	if err != nil {
		return err
	}
	there := map[types.UID]bool{}
	for i := range list.Items {
		there[list.Items[i].UID] = true
		k.changed(ctx, &list.Items[i])
	}
	k.forget(there)
	w, err := pods.Watch(ctx, metav1.ListOptions{FieldSelector: selector, ResourceVersion: list.ResourceVersion, AllowWatchBookmarks: true})
	if err != nil {
		return err
	}
	defer w.Stop()
	for event := range w.ResultChan() {
		pod, ok := event.Object.(*corev1.Pod)
		switch {
		case !ok && event.Type == watch.Error:
			return errWatchEnded // such as an expired resourceVersion: list again
		case !ok:
		case event.Type == watch.Deleted:
			k.deleted(pod)
		case event.Type != watch.Bookmark:
			k.changed(ctx, pod)
		}
	}
	return nil
}

// changed hands a pod to its worker.
func (k *Kubelet) changed(ctx context.Context, pod *corev1.Pod) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if w := k.workers[pod.UID]; w != nil {
		w.update(pod)
		return
	}
	w := newWorker(k, pod)
	k.workers[pod.UID] = w
	k.wg.Go(func() { w.run(ctx) })
}

// deleted tells a worker that its pod is no longer in the API.
func (k *Kubelet) deleted(pod *corev1.Pod) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dropLocked(pod.UID)
}

// forget does so for all pods that a list did not have.
func (k *Kubelet) forget(there map[types.UID]bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for uid := range k.workers {
		if !there[uid] {
			k.dropLocked(uid)
		}
	}
}

// dropLocked ends the worker of a pod that is gone from the API. Until then it
// is kept even when its work is done: the watch may still tell of changes that
// the worker has made itself.
func (k *Kubelet) dropLocked(uid types.UID) {
	if w := k.workers[uid]; w != nil && w.vanish() {
		delete(k.workers, uid)
	}
}

// finished removes a worker that has ended after its pod was gone.
func (k *Kubelet) finished(uid types.UID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.workers, uid)
}
