package openapi

import "slices"

// GroupVersion is one served version of a group with its resources.
type GroupVersion struct {
	Group, Version string
	// Resources by name, each with its subresources.
	Resources map[string][]string
}

// Path is the version's path under the API's root: "api/v1", "apis/apps/v1".
func (g GroupVersion) Path() string {
	if g.Group == "" {
		return "api/" + g.Version
	}
	return "apis/" + g.Group + "/" + g.Version
}

// Has reports whether the resource, or its subresource if named, is served.
func (g GroupVersion) Has(resource, sub string) bool {
	subs, ok := g.Resources[resource]
	return ok && (sub == "" || slices.Contains(subs, sub))
}

// Served is what the lab's API serves, and so what the documents are trimmed
// to. A test of lab/kube compares it with the API's own discovery.
var Served = []GroupVersion{
	{"", "v1", map[string][]string{
		"bindings":        nil,
		"configmaps":      nil,
		"endpoints":       nil,
		"events":          nil,
		"namespaces":      {"status", "finalize"},
		"nodes":           {"status"},
		"pods":            {"attach", "binding", "ephemeralcontainers", "exec", "log", "portforward", "status"},
		"secrets":         nil,
		"serviceaccounts": nil,
		"services":        {"status"},
	}},
	{"authentication.k8s.io", "v1", map[string][]string{"selfsubjectreviews": nil}},
	{"authorization.k8s.io", "v1", map[string][]string{
		"selfsubjectaccessreviews": nil,
		"selfsubjectrulesreviews":  nil,
	}},
	{"coordination.k8s.io", "v1", map[string][]string{"leases": nil}},
	{"discovery.k8s.io", "v1", map[string][]string{"endpointslices": nil}},
	{"events.k8s.io", "v1", map[string][]string{"events": nil}},
}
