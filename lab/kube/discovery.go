package kube

import (
	"encoding/json"
	"net/http"
	goruntime "runtime"
	"strconv"

	restful "github.com/emicklei/go-restful/v3"
	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiversion "k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/endpoints/discovery"
	"k8s.io/apiserver/pkg/endpoints/discovery/aggregated"

	"podlab/lab/kube/openapi"
)

// Version is what /version answers.
var Version = apiversion.Info{
	Major: "1", Minor: "37", EmulationMajor: "1", EmulationMinor: "37", MinCompatibilityMajor: "1", MinCompatibilityMinor: "36",
	GitVersion: "v1.37.2+podlab", GitTreeState: "clean",
	GoVersion: goruntime.Version(), Compiler: goruntime.Compiler, Platform: goruntime.GOOS + "/" + goruntime.GOARCH,
}

// apiDiscovery tells clients what there is: the lists at /api and /apis, and
// both in one document for those who ask for apidiscovery.k8s.io/v2.
type apiDiscovery struct {
	codecs runtime.NegotiatedSerializer
	core   aggregated.ResourceManager
	groups aggregated.ResourceManager
	named  []metav1.APIGroup
}

func newDiscovery(codecs runtime.NegotiatedSerializer) *apiDiscovery {
	return &apiDiscovery{codecs: codecs, core: aggregated.NewResourceManager("api"), groups: aggregated.NewResourceManager("apis")}
}

func (d *apiDiscovery) add(gv schema.GroupVersion, found []apidiscoveryv2.APIResourceDiscovery) {
	v := apidiscoveryv2.APIVersionDiscovery{Version: gv.Version, Resources: found, Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent}
	if gv.Group == "" {
		d.core.AddGroupVersion("", v)
		return
	}
	d.groups.AddGroupVersion(gv.Group, v)
	// Clients show groups in the order of priority, which is the order here.
	d.groups.SetGroupVersionPriority(metav1.GroupVersion(gv), 18000-len(d.named)*100, 15)
	version := metav1.GroupVersionForDiscovery{GroupVersion: gv.String(), Version: gv.Version}
	d.named = append(d.named, metav1.APIGroup{Name: gv.Group, Versions: []metav1.GroupVersionForDiscovery{version}, PreferredVersion: version})
}

func (d *apiDiscovery) install(c *restful.Container) {
	addresses := discovery.DefaultAddresses{DefaultAddress: "127.0.0.1:6443"}
	legacy := discovery.NewLegacyRootAPIHandler(addresses, d.codecs, "/api")
	c.Add(aggregated.WrapAggregatedDiscoveryToHandler(legacy, d.core, d.core).GenerateWebService("/api", metav1.APIVersions{}))
	root := discovery.NewRootAPIsHandler(addresses, d.codecs)
	for _, g := range d.named {
		root.AddGroup(g)
		c.Add(discovery.NewAPIGroupHandler(d.codecs, g).WebService())
	}
	c.Add(aggregated.WrapAggregatedDiscoveryToHandler(root, d.groups, d.groups).GenerateWebService("/apis", metav1.APIGroupList{}))
}

// installPlain serves what is no resource.
func (s *Server) installPlain(mux *http.ServeMux) {
	mux.Handle("/openapi/", openapi.Handler())
	mux.HandleFunc("/version", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, Version) })
	// kubectl apply asks for these when it does not know a kind.
	mux.HandleFunc("GET /apis/apiextensions.k8s.io/v1/customresourcedefinitions", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, metav1.List{
			TypeMeta: metav1.TypeMeta{APIVersion: "apiextensions.k8s.io/v1", Kind: "CustomResourceDefinitionList"},
			ListMeta: metav1.ListMeta{ResourceVersion: strconv.FormatUint(s.store.Revision(), 10)},
			Items:    []runtime.RawExtension{},
		})
	})
	for _, path := range []string{"/healthz", "/readyz", "/livez"} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			_, _ = w.Write([]byte("ok"))
		})
	}
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(v) // the client has gone
}
