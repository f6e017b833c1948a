package kube

import (
	"fmt"
	"net"
	"net/netip"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/generic"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/registry/authentication/selfsubjectreview"
	"k8s.io/kubernetes/pkg/registry/authorization/selfsubjectaccessreview"
	"k8s.io/kubernetes/pkg/registry/authorization/selfsubjectrulesreview"
	leasestore "k8s.io/kubernetes/pkg/registry/coordination/lease/storage"
	configmapstore "k8s.io/kubernetes/pkg/registry/core/configmap/storage"
	endpointstore "k8s.io/kubernetes/pkg/registry/core/endpoint/storage"
	eventstore "k8s.io/kubernetes/pkg/registry/core/event/storage"
	namespacestore "k8s.io/kubernetes/pkg/registry/core/namespace/storage"
	nodestore "k8s.io/kubernetes/pkg/registry/core/node/storage"
	podstore "k8s.io/kubernetes/pkg/registry/core/pod/storage"
	secretstore "k8s.io/kubernetes/pkg/registry/core/secret/storage"
	"k8s.io/kubernetes/pkg/registry/core/service/ipallocator"
	"k8s.io/kubernetes/pkg/registry/core/service/portallocator"
	servicestore "k8s.io/kubernetes/pkg/registry/core/service/storage"
	"k8s.io/kubernetes/pkg/registry/core/serviceaccount"
	endpointslicestore "k8s.io/kubernetes/pkg/registry/discovery/endpointslice/storage"

	// Types, defaults and conversions, for the scheme.
	_ "k8s.io/kubernetes/pkg/apis/authentication/install"
	_ "k8s.io/kubernetes/pkg/apis/authorization/install"
	_ "k8s.io/kubernetes/pkg/apis/coordination/install"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	_ "k8s.io/kubernetes/pkg/apis/discovery/install"
	_ "k8s.io/kubernetes/pkg/apis/events/install"
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
	{corev1.SchemeGroupVersion, services},
	{corev1.SchemeGroupVersion, serviceEndpoints},
	{discoveryv1.SchemeGroupVersion, endpointSlices},
	{eventsv1.SchemeGroupVersion, events}, // the same objects as core/v1's
	{authenticationv1.SchemeGroupVersion, selfReviews},
	{authorizationv1.SchemeGroupVersion, accessReviews},
	{coordinationv1.SchemeGroupVersion, leases},
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

// nodePorts is a real API server's --service-node-port-range.
var nodePorts = utilnet.PortRange{Base: 30000, Size: 2768}

// services allocate their addresses and node ports as the real ones do, from
// bitmaps that are filled from the services in the journal.
func services(s *Server, o generic.RESTOptionsGetter) (map[string]rest.Storage, error) {
	addresses, first, err := addressRanges(s.cfg.ServiceCIDRs)
	if err != nil {
		return nil, err
	}
	ports, err := portallocator.NewInMemory(nodePorts)
	if err != nil {
		return nil, err
	}
	svc, status, _, err := servicestore.NewREST(o, first, addresses, ports, nil, nil, s.kubeletTransport)
	if err != nil {
		return nil, err
	}
	if err := takeAllocated(svc, addresses, ports); err != nil {
		return nil, err
	}
	return map[string]rest.Storage{"services": svc, "services/status": status}, nil
}

func addressRanges(cidrs []netip.Prefix) (map[api.IPFamily]ipallocator.Interface, api.IPFamily, error) {
	ranges := map[api.IPFamily]ipallocator.Interface{}
	var first api.IPFamily
	for _, c := range cidrs {
		_, n, err := net.ParseCIDR(c.String())
		if err != nil {
			return nil, "", fmt.Errorf("service range %s: %w", c, err)
		}
		r, err := ipallocator.NewInMemory(n)
		if err != nil {
			return nil, "", fmt.Errorf("service range %s: %w", c, err)
		}
		if first == "" {
			first = r.IPFamily()
		}
		ranges[r.IPFamily()] = r
	}
	return ranges, first, nil
}

// takeAllocated marks what the services from the journal have.
func takeAllocated(svc rest.Lister, addresses map[api.IPFamily]ipallocator.Interface, ports *portallocator.PortAllocator) error {
	list, err := svc.List(request.WithNamespace(request.NewContext(), ""), &internalversion.ListOptions{})
	if err != nil {
		return err
	}
	all, ok := list.(*api.ServiceList)
	if !ok {
		return fmt.Errorf("cannot list services: got %T", list)
	}
	for _, item := range all.Items {
		for i, ip := range item.Spec.ClusterIPs {
			if r := addresses[item.Spec.IPFamilies[min(i, len(item.Spec.IPFamilies)-1)]]; r != nil && ip != api.ClusterIPNone {
				_ = r.Allocate(net.ParseIP(ip)) // taken twice or outside the range: the lab's ranges have changed
			}
		}
		for _, p := range item.Spec.Ports {
			if p.NodePort != 0 {
				_ = ports.Allocate(int(p.NodePort)) // one node port may serve TCP and UDP
			}
		}
	}
	return nil
}

func serviceEndpoints(_ *Server, o generic.RESTOptionsGetter) (map[string]rest.Storage, error) {
	e, err := endpointstore.NewREST(o)
	return map[string]rest.Storage{"endpoints": e}, err
}

func endpointSlices(_ *Server, o generic.RESTOptionsGetter) (map[string]rest.Storage, error) {
	e, err := endpointslicestore.NewREST(o)
	return map[string]rest.Storage{"endpointslices": e}, err
}

// accessReviews answer kubectl auth can-i.
func accessReviews(_ *Server, _ generic.RESTOptionsGetter) (map[string]rest.Storage, error) {
	return map[string]rest.Storage{
		"selfsubjectaccessreviews": selfsubjectaccessreview.NewREST(allowAll{}, legacyscheme.Scheme),
		"selfsubjectrulesreviews":  selfsubjectrulesreview.NewREST(allowAll{}),
	}, nil
}

// selfReviews answer kubectl auth whoami.
func selfReviews(_ *Server, _ generic.RESTOptionsGetter) (map[string]rest.Storage, error) {
	return map[string]rest.Storage{"selfsubjectreviews": selfsubjectreview.NewREST()}, nil
}

// leases are the nodes' signs of life that kubectl describe node shows.
func leases(_ *Server, o generic.RESTOptionsGetter) (map[string]rest.Storage, error) {
	l, err := leasestore.NewREST(o)
	return map[string]rest.Storage{"leases": l}, err
}
