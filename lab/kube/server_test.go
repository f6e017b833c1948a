package kube

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

func newServer(t *testing.T) *Server {
	t.Helper()
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, s) })
	return s
}

func closed(t *testing.T, s *Server) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func podNamed(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "nginx"}}},
	}
}

// next waits for the watch's next event.
func next(t *testing.T, w watch.Interface) watch.Event {
	t.Helper()
	select {
	case e, ok := <-w.ResultChan():
		if !ok {
			t.Fatal("the watch ended")
		}
		return e
	case <-t.Context().Done():
		t.Fatal("no event came")
	}
	return watch.Event{}
}

func TestPodsLife(t *testing.T) {
	ctx := t.Context()
	s := newServer(t)
	pods := s.Core().Pods("default")
	w, err := pods.Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()

	created, err := pods.Create(ctx, podNamed("pod-a"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if created.UID == "" || created.Status.Phase != corev1.PodPending || created.Spec.ServiceAccountName != "default" ||
		created.Spec.Containers[0].ImagePullPolicy != corev1.PullAlways || len(created.Spec.Tolerations) != 2 {
		t.Errorf("the created pod lacks defaults: %+v", created)
	}
	if e := next(t, w); e.Type != watch.Added || e.Object.(*corev1.Pod).Name != "pod-a" {
		t.Errorf("got %v, want pod-a added", e)
	}

	patched, err := pods.Patch(ctx, "pod-a", types.StrategicMergePatchType, []byte(`{"metadata":{"labels":{"x":"y"}}}`), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if patched.Labels["x"] != "y" {
		t.Errorf("labels are %v after the patch", patched.Labels)
	}
	if e := next(t, w); e.Type != watch.Modified {
		t.Errorf("got %v, want modified", e.Type)
	}

	if _, err := pods.Update(ctx, created, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("updating with an old version gave %v, want a conflict", err)
	}

	patched.Status.Phase = corev1.PodRunning
	if _, err := pods.UpdateStatus(ctx, patched, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if e := next(t, w); e.Object.(*corev1.Pod).Status.Phase != corev1.PodRunning {
		t.Errorf("got %v, want a running pod", e)
	}

	zero := int64(0)
	if err := pods.Delete(ctx, "pod-a", metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
		t.Fatal(err)
	}
	for e := next(t, w); e.Type != watch.Deleted; e = next(t, w) {
		if e.Type != watch.Modified || e.Object.(*corev1.Pod).DeletionTimestamp == nil {
			t.Errorf("got %v, want deleted", e)
		}
	}
	if _, err := pods.Get(ctx, "pod-a", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("getting a deleted pod gave %v", err)
	}
}

func TestGracefulDelete(t *testing.T) {
	ctx := t.Context()
	s := newServer(t)
	pods := s.Core().Pods("default")
	if _, err := pods.Create(ctx, podNamed("a"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	bind := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Target: corev1.ObjectReference{Kind: "Node", Name: "node1"}}
	if err := pods.Bind(ctx, bind, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := pods.Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	p, err := pods.Get(ctx, "a", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if p.DeletionTimestamp == nil || *p.DeletionGracePeriodSeconds != 30 || p.Spec.NodeName != "node1" {
		t.Errorf("a bound pod that is deleted must stay for its kubelet: %+v", p.ObjectMeta)
	}
}

func TestMissingNamespace(t *testing.T) {
	s := newServer(t)
	_, err := s.Core().Pods("nowhere").Create(t.Context(), podNamed("a"), metav1.CreateOptions{})
	if want := `namespaces "nowhere" not found`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestWatchEndsWithTheServer(t *testing.T) {
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	w, err := s.Core().Nodes().Watch(context.Background(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for range w.ResultChan() {
	}
}

func TestNamespaceEnds(t *testing.T) {
	ctx := t.Context()
	s := newServer(t)
	if _, err := s.Core().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "team"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	accounts, err := s.Core().ServiceAccounts("team").Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer accounts.Stop()
	if e := next(t, accounts); e.Type != watch.Added || e.Object.(*corev1.ServiceAccount).Name != "default" {
		t.Fatalf("got %v, want the default service account", e)
	}
	pods := s.Core().Pods("team")
	if _, err := pods.Create(ctx, podNamed("stays"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := pods.Create(ctx, podNamed("goes"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	bind := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "stays"}, Target: corev1.ObjectReference{Kind: "Node", Name: "node1"}}
	if err := pods.Bind(ctx, bind, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	podWatch, err := pods.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=stays"})
	if err != nil {
		t.Fatal(err)
	}
	defer podWatch.Stop()
	spaces, err := s.Core().Namespaces().Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=team"})
	if err != nil {
		t.Fatal(err)
	}
	defer spaces.Stop()

	if err := s.Core().Namespaces().Delete(ctx, "team", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for e := next(t, podWatch); e.Object.(*corev1.Pod).DeletionTimestamp == nil; e = next(t, podWatch) {
		if e.Type == watch.Deleted {
			t.Fatal("a bound pod went without its kubelet")
		}
	}
	ns, err := s.Core().Namespaces().Get(ctx, "team", metav1.GetOptions{})
	if err != nil || ns.Status.Phase != corev1.NamespaceTerminating {
		t.Fatalf("the namespace must stay Terminating while a pod is in it: %v, %v", ns.Status.Phase, err)
	}
	_, err = pods.Create(ctx, podNamed("late"), metav1.CreateOptions{})
	if want := `pods "late" is forbidden: unable to create new content in namespace team because it is being terminated`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	zero := int64(0)
	if err := pods.Delete(ctx, "stays", metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
		t.Fatal(err)
	}
	for e := next(t, spaces); e.Type != watch.Deleted; e = next(t, spaces) {
	}
}

func TestDefaultNamespaceStays(t *testing.T) {
	s := newServer(t)
	err := s.Core().Namespaces().Delete(t.Context(), "default", metav1.DeleteOptions{})
	if want := `namespaces "default" is forbidden: this namespace may not be deleted`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
