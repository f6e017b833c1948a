package kube

import (
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/structured-merge-diff/v6/typed"

	"podlab/lab/kube/openapi"
)

// errNoSchema is what the API server's field manager gets before the schemas
// are there. It then leaves an object's managed fields as they are.
var errNoSchema = errors.New("the schemas are not loaded")

// lazySchemas are the types by which the API tracks who manages which field
// and merges server-side applies. They cost about 2 MB and 15 ms, which an idle
// lab does without: they are loaded at the first write that comes from outside
// the agent, so what the lab's own parts wrote before counts as nobody's.
type lazySchemas struct {
	log    *slog.Logger
	once   sync.Once
	loaded atomic.Pointer[managedfields.TypeConverter]
}

var _ managedfields.TypeConverter = (*lazySchemas)(nil)

// load makes the schemas ready; it does something the first time only.
func (l *lazySchemas) load() {
	l.once.Do(func() {
		models, err := openapi.Schemas()
		if err != nil {
			l.log.Error("no server-side apply", "err", err)
			return
		}
		c, err := managedfields.NewTypeConverter(models, false)
		if err != nil {
			l.log.Error("no server-side apply", "err", err)
			return
		}
		l.loaded.Store(&c)
	})
}

// loading loads the schemas before a write from outside is handled.
func (l *lazySchemas) loading(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		apply := r.Header.Get("Content-Type") == "application/apply-patch+yaml"
		if apply || !isOwnCall(r.Context()) && r.Method != http.MethodGet && r.Method != http.MethodHead {
			l.load()
		}
		h.ServeHTTP(w, r)
	})
}

// ObjectToTyped gives the object its schema.
func (l *lazySchemas) ObjectToTyped(o runtime.Object, opts ...typed.ValidationOptions) (*typed.TypedValue, error) {
	c := l.loaded.Load()
	if c == nil {
		return nil, errNoSchema
	}
	return (*c).ObjectToTyped(o, opts...)
}

// TypedToObject is its reverse.
func (l *lazySchemas) TypedToObject(v *typed.TypedValue) (runtime.Object, error) {
	c := l.loaded.Load()
	if c == nil {
		return nil, errNoSchema
	}
	return (*c).TypedToObject(v)
}
