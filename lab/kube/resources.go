package kube

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/registry/generic"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	api "k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install" // the scheme's types, defaults and conversions
	configmapstore "k8s.io/kubernetes/pkg/registry/core/configmap/storage"
	eventstore "k8s.io/kubernetes/pkg/registry/core/event/storage"
	namespacestore "k8s.io/kubernetes/pkg/registry/core/namespace/storage"
	nodestore "k8s.io/kubernetes/pkg/registry/core/node/storage"
	podstore "k8s.io/kubernetes/pkg/registry/core/pod/storage"
	secretstore "k8s.io/kubernetes/pkg/registry/core/secret/storage"
	"k8s.io/kubernetes/pkg/registry/core/serviceaccount"
)

// eventTTL is how long an Event is kept, as by a real API server's --event-ttl.
const eventTTL = 3600

// resource is one row of what the API serves.
type resource struct {
	version schema.GroupVersion
	// storages makes the resource and its subresources by path ("pods", "pods/log").
	storages func(*Server, generic.RESTOptionsGetter) (map[string]rest.Storage, error)
}

// resources lists what the API serves, in the order of discovery. A new kind
// is a new row.
var resources = []resource{
	{corev1.SchemeGroupVersion, namespaces},
	{corev1.SchemeGroupVersion, nodes},
	{corev1.SchemeGroupVersion, pods},
	{corev1.SchemeGroupVersion, events},
	{corev1.SchemeGroupVersion, configMaps},
	{corev1.SchemeGroupVersion, secrets},
	{corev1.SchemeGroupVersion, serviceAccounts},
}

func namespaces(_ *Server, o generic.RESTOptionsGetter) (map[string]rest.Storage, error) {
	ns, status, finalize, err := namespacestore.NewREST(o)
	if err != nil {
		return nil, err
	}
	return map[string]rest.Storage{"namespaces": ns, "namespaces/status": status, "namespaces/finalize": finalize}, nil
}

func nodes(s *Server, o generic.RESTOptionsGetter) (map[string]rest.Storage, error) {
	n, err := nodestore.NewStorage(o, s.kubeletConfig(), s.kubeletTransport)
	if err != nil {
		return nil, err
	}
	return map[string]rest.Storage{"nodes": n.Node, "nodes/status": n.Status}, nil
}

func pods(s *Server, o generic.RESTOptionsGetter) (map[string]rest.Storage, error) {
	p, err := podstore.NewStorage(o, s, s.kubeletTransport, nil, allowAll{})
	if err != nil {
		return nil, err
	}
	return map[string]rest.Storage{
		"bindings":                 p.LegacyBinding,
		"pods":                     p.Pod,
		"pods/attach":              p.Attach,
		"pods/binding":             p.Binding,
		"pods/ephemeralcontainers": p.EphemeralContainers,
		"pods/exec":                p.Exec,
		"pods/log":                 p.Log,
		"pods/portforward":         p.PortForward,
		"pods/status":              p.Status,
	}, nil
}

func events(_ *Server, o generic.RESTOptionsGetter) (map[string]rest.Storage, error) {
	e, err := eventstore.NewREST(o, eventTTL)
	return map[string]rest.Storage{"events": e}, err
}

func configMaps(_ *Server, o generic.RESTOptionsGetter) (map[string]rest.Storage, error) {
	c, err := configmapstore.NewREST(o)
	return map[string]rest.Storage{"configmaps": c}, err
}

func secrets(_ *Server, o generic.RESTOptionsGetter) (map[string]rest.Storage, error) {
	c, err := secretstore.NewREST(o)
	return map[string]rest.Storage{"secrets": c}, err
}

// serviceAccountREST is registry/core/serviceaccount/storage without its
// tokens, which would bring a JOSE library into the agent.
type serviceAccountREST struct{ *genericregistry.Store }

// ShortNames are what kubectl calls them too.
func (serviceAccountREST) ShortNames() []string { return []string{"sa"} }

func serviceAccounts(s *Server, o generic.RESTOptionsGetter) (map[string]rest.Storage, error) {
	store := &genericregistry.Store{
		NewFunc:                   func() runtime.Object { return &api.ServiceAccount{} },
		NewListFunc:               func() runtime.Object { return &api.ServiceAccountList{} },
		DefaultQualifiedResource:  api.Resource("serviceaccounts"),
		SingularQualifiedResource: api.Resource("serviceaccount"),
		CreateStrategy:            serviceaccount.Strategy,
		UpdateStrategy:            serviceaccount.Strategy,
		DeleteStrategy:            serviceaccount.Strategy,
		ReturnDeletedObject:       true,
		TableConvertor:            s.tables,
	}
	err := store.CompleteWithOptions(&generic.StoreOptions{RESTOptions: o})
	return map[string]rest.Storage{"serviceaccounts": serviceAccountREST{store}}, err
}
