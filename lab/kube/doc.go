// Package kube is the Kubernetes API server of a lab. It runs inside the agent
// and is made of Kubernetes' own parts: the registries of k8s.io/kubernetes
// (validation, defaulting, strategies, printers) behind the endpoints of
// k8s.io/apiserver, over the in-memory, journalled store of lab/kube/memstore
// where a real cluster has etcd.
//
// New makes a Server, Handler serves it, RESTConfig and Core give clients that
// call it in the same process without sockets, Apply takes a whole manifest.
// Close ends watches and waits for every goroutine.
//
// A Server is safe for concurrent use. Errors towards clients are
// metav1.Status objects as a real API server gives them; Apply's are lab.Error
// with lines.
package kube
