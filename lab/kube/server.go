package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	restful "github.com/emicklei/go-restful/v3"
	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	restclient "k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/printers"
	printersinternal "k8s.io/kubernetes/pkg/printers/internalversion"
	printerstorage "k8s.io/kubernetes/pkg/printers/storage"

	"podlab/lab"
	"podlab/lab/kube/memstore"
)

// Config of a Server.
type Config struct {
	// Journal is the file that keeps the objects; empty keeps them in memory only.
	Journal string
	// Limits of what is kept; the zero value means memstore.DefaultLimits.
	Limits memstore.Limits
	// ServiceCIDRs are the ranges of Service addresses, the first one's family
	// being the default; none means lab.DefaultLab's.
	ServiceCIDRs []netip.Prefix
	// Log takes what clients are not told; nil is slog.Default.
	Log *slog.Logger
}

// maxRequestBytes is a real API server's limit of a request's body.
const maxRequestBytes = 3 << 20

// Server is a lab's Kubernetes API.
type Server struct {
	cfg     Config
	log     *slog.Logger
	store   *memstore.Store
	codecs  serializer.CodecFactory
	handler http.Handler
	schemas *lazySchemas
	tables  rest.TableConvertor // kubectl's columns

	core  *corev1client.CoreV1Client
	raw   restclient.Interface // JSON, for Apply
	kinds map[schema.GroupVersionKind]servedKind
	fresh bool

	kubeletTransport http.RoundTripper

	// storages by group, version and path, for those who act on every resource.
	storages map[schema.GroupVersion]map[string]rest.Storage

	runtimeMu sync.Mutex
	runtime   Runtime

	ctx    context.Context // ends with the server
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// New makes the API with what the journal holds.
func New(cfg Config) (*Server, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	logKlog(cfg.Log)
	if cfg.Limits == (memstore.Limits{}) {
		cfg.Limits = memstore.DefaultLimits()
	}
	if len(cfg.ServiceCIDRs) == 0 {
		cfg.ServiceCIDRs = lab.DefaultLab().Spec.ServiceCIDRs
	}
	store := memstore.New(cfg.Limits)
	if cfg.Journal != "" {
		var err error
		if store, err = memstore.Open(cfg.Journal, cfg.Limits); err != nil {
			return nil, err
		}
		if n := store.Torn(); n > 0 {
			cfg.Log.Warn("the journal ended in the middle of a write, which is lost", "bytes", n)
		}
	}
	s := &Server{
		cfg: cfg, log: cfg.Log, store: store, fresh: store.Len() == 0, kinds: map[schema.GroupVersionKind]servedKind{},
		schemas: &lazySchemas{log: cfg.Log},
	}
	s.tables = printerstorage.TableConvertor{TableGenerator: printers.NewTableGenerator().With(printersinternal.AddHandlers)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.kubeletTransport = s.newKubeletTransport()
	s.codecs = serializer.NewCodecFactory(legacyscheme.Scheme,
		serializer.WithStreamingCollectionEncodingToJSON(), serializer.WithStreamingCollectionEncodingToProtobuf())
	if err := s.install(); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	core, err := corev1client.NewForConfig(s.RESTConfig("podlab"))
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.core = core
	if s.raw, err = s.rawClient(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := s.bootstrap(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close ends every watch and stream and waits for the server's goroutines.
func (s *Server) Close() error {
	s.cancel()
	err := s.store.Close()
	s.wg.Wait()
	return err
}

// Handler serves the API at "/".
func (s *Server) Handler() http.Handler { return s.handler }

// Fresh reports whether the journal was empty when the server was made.
func (s *Server) Fresh() bool { return s.fresh }

func (s *Server) install() error {
	container := restful.NewContainer()
	container.Router(restful.CurlyRouter{})
	container.RecoverHandler(func(p any, w http.ResponseWriter) { s.recovered(p, w) })

	s.storages = map[schema.GroupVersion]map[string]rest.Storage{}
	var order []schema.GroupVersion
	for _, r := range resources {
		m, err := r.storages(s, options{s})
		if err != nil {
			return fmt.Errorf("cannot make storage of %s: %w", r.version, err)
		}
		if s.storages[r.version] == nil {
			s.storages[r.version] = map[string]rest.Storage{}
			order = append(order, r.version)
		}
		for path, st := range m {
			s.storages[r.version][path] = st
		}
	}
	d := newDiscovery(s.codecs)
	for _, gv := range order {
		group := s.group(gv)
		found, _, err := group.InstallREST(container)
		if err != nil {
			return fmt.Errorf("cannot install %s: %w", gv, err)
		}
		s.noteKinds(gv, found)
		d.add(gv, found)
	}
	d.install(container)
	mux := http.NewServeMux()
	mux.Handle("/api", container)
	mux.Handle("/api/", container)
	mux.Handle("/apis", container)
	mux.Handle("/apis/", container)
	s.installPlain(mux)
	s.handler = s.filters(mux)
	return nil
}

// noteKinds remembers where the kinds are that can be created and patched.
func (s *Server) noteKinds(gv schema.GroupVersion, found []apidiscoveryv2.APIResourceDiscovery) {
	for _, r := range found {
		if r.ResponseKind != nil && slices.Contains(r.Verbs, "create") && slices.Contains(r.Verbs, "patch") {
			s.kinds[gv.WithKind(r.ResponseKind.Kind)] = servedKind{r.Resource, r.Scope == apidiscoveryv2.ScopeNamespace}
		}
	}
}

func (s *Server) group(gv schema.GroupVersion) *endpoints.APIGroupVersion {
	root := "/apis"
	if gv.Group == "" {
		root = "/api"
	}
	served := map[string][]string{}
	for path := range s.storages[gv] {
		served[path] = []string{gv.String()}
	}
	return &endpoints.APIGroupVersion{
		Storage: s.storages[gv], Root: root, GroupVersion: gv, AllServedVersionsByResource: served,
		OptionsExternalVersion: &schema.GroupVersion{Version: "v1"},
		Serializer:             s.codecs, ParameterCodec: legacyscheme.ParameterCodec,
		Typer: legacyscheme.Scheme, Convertor: legacyscheme.Scheme,
		Creater:               legacyscheme.Scheme, //nolint:misspell // the field's name
		ConvertabilityChecker: legacyscheme.Scheme, Defaulter: legacyscheme.Scheme,
		Namer: runtime.Namer(meta.NewAccessor()), UnsafeConvertor: runtime.UnsafeObjectConvertor(legacyscheme.Scheme),
		TypeConverter:              s.schemas,
		EquivalentResourceRegistry: runtime.NewEquivalentResourceRegistry(),
		Authorizer:                 allowAll{}, Admit: &admitter{s},
		MinRequestTimeout: 30 * time.Minute, MaxRequestBodyBytes: maxRequestBytes,
	}
}

// options gives every registry the lab's store in place of etcd.
type options struct{ s *Server }

// GetRESTOptions says how a resource is kept: in its group's first version.
func (o options) GetRESTOptions(gr schema.GroupResource, _ runtime.Object) (generic.RESTOptions, error) {
	i := slices.IndexFunc(resources, func(r resource) bool { return r.version.Group == gr.Group })
	if i < 0 {
		return generic.RESTOptions{}, fmt.Errorf("cannot keep %s: its group is not served", gr)
	}
	codec, versioner, err := storageCodec(resources[i].version)
	if err != nil {
		return generic.RESTOptions{}, err
	}
	config := storagebackend.Config{Codec: codec, EncodeVersioner: versioner}
	prefix := gr.Resource
	if gr.Group != "" {
		prefix = gr.Group + "/" + gr.Resource
	}
	return generic.RESTOptions{
		StorageConfig:           config.ForResource(gr),
		ResourcePrefix:          prefix,
		DeleteCollectionWorkers: 1,
		Decorator: func(_ *storagebackend.ConfigForResource, prefix string, _ func(runtime.Object) (string, error),
			newFunc, _ func() runtime.Object, _ storage.AttrFunc, _ storage.IndexerFuncs, _ *cache.Indexers,
		) (storage.Interface, factory.DestroyFunc, error) {
			return o.s.store.For(prefix, codec, newFunc), func() {}, nil
		},
	}, nil
}

// storageCodec encodes objects as protobuf of the version gv and decodes them
// to Kubernetes' internal types.
func storageCodec(gv schema.GroupVersion) (runtime.Codec, runtime.GroupVersioner, error) {
	info, ok := runtime.SerializerInfoForMediaType(legacyscheme.Codecs.SupportedMediaTypes(), runtime.ContentTypeProtobuf)
	if !ok {
		return nil, nil, errors.New("cannot find the protobuf serializer")
	}
	encode := runtime.NewMultiGroupVersioner(gv, schema.GroupKind{Group: gv.Group})
	internal := schema.GroupVersion{Group: gv.Group, Version: runtime.APIVersionInternal}
	decode := runtime.NewCoercingMultiGroupVersioner(internal, schema.GroupKind{Group: gv.Group})
	return runtime.NewCodec(
		legacyscheme.Codecs.EncoderForVersion(info.Serializer, encode),
		legacyscheme.Codecs.DecoderToVersion(info.Serializer, decode),
	), encode, nil
}

var requestInfo = &request.RequestInfoFactory{
	APIPrefixes:          sets.NewString("api", "apis"),
	GrouplessAPIPrefixes: sets.NewString("api"),
}

func (s *Server) recovered(p any, w http.ResponseWriter) {
	s.log.Error("panic in the lab's API", "panic", p)
	http.Error(w, "internal error", http.StatusInternalServerError)
}
