package kube

import (
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// TestRestored starts a second server from the journal of one that was never
// closed, as after the agent's death.
func TestRestored(t *testing.T) {
	ctx := t.Context()
	journal := filepath.Join(t.TempDir(), "journal")
	first, err := New(Config{Journal: journal})
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, first)
	if !first.Fresh() {
		t.Error("a server without a journal must be fresh")
	}
	pod, err := first.Core().Pods("default").Create(ctx, podNamed("web"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pod.Status.PodIP = "10.244.1.10"
	pod.Status.PodIPs = []corev1.PodIP{{IP: "10.244.1.10"}}
	if pod, err = first.Core().Pods("default").UpdateStatus(ctx, pod, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	service := func(s *Server, name string) *corev1.Service {
		t.Helper()
		svc, err := s.Core().Services("default").Create(ctx, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, IPFamilyPolicy: new(corev1.IPFamilyPolicyPreferDualStack),
				Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(80), NodePort: 30080}}},
		}, metav1.CreateOptions{})
		if err != nil {
			if name == "taken" {
				if want := "provided port is already allocated"; !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %s", err, want)
				}
				return nil
			}
			t.Fatal(err)
		}
		return svc
	}
	svc := service(first, "web")
	if len(svc.Spec.ClusterIPs) != 2 || !strings.HasPrefix(svc.Spec.ClusterIPs[0], "10.") || !strings.HasPrefix(svc.Spec.ClusterIPs[1], "fd00:10:96::") {
		t.Errorf("the service's addresses are %v, want one of each of the lab's ranges", svc.Spec.ClusterIPs)
	}

	second, err := New(Config{Journal: journal})
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, second)
	if second.Fresh() {
		t.Error("a server with a journal is not fresh")
	}
	again, err := second.Core().Pods("default").Get(ctx, "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if again.UID != pod.UID || again.ResourceVersion != pod.ResourceVersion || again.Status.PodIP != "10.244.1.10" {
		t.Errorf("the pod came back as %+v", again)
	}
	if second.store.Revision() != first.store.Revision() {
		t.Errorf("the version went from %d to %d by restarting", first.store.Revision(), second.store.Revision())
	}
	if s := service(second, "taken"); s != nil {
		t.Errorf("the node port was given twice: %+v", s.Spec.Ports)
	}
	same := svc.DeepCopy()
	same.ObjectMeta = metav1.ObjectMeta{Name: "same"}
	same.Spec.Ports[0].NodePort = 0
	if _, err := second.Core().Services("default").Create(ctx, same, metav1.CreateOptions{}); err == nil || !strings.Contains(err.Error(), "provided IP is already allocated") {
		t.Errorf("the address was given twice: %v", err)
	}
}

func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		s, err := New(Config{})
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPodCreated(b *testing.B) {
	s, err := New(Config{Journal: filepath.Join(b.TempDir(), "journal")})
	if err != nil {
		b.Fatal(err)
	}
	zero := int64(0)
	for b.Loop() {
		if _, err := s.Core().Pods("default").Create(b.Context(), podNamed("p"), metav1.CreateOptions{}); err != nil {
			b.Fatal(err)
		}
		if err := s.Core().Pods("default").Delete(b.Context(), "p", metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}
