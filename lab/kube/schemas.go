package kube

import (
	"errors"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
)

var errNoSchema = errors.New("the schemas are not loaded")

// lazySchemas are the types that server-side apply merges by.
type lazySchemas struct{}

var _ managedfields.TypeConverter = (*lazySchemas)(nil)

func newLazySchemas() *lazySchemas { return &lazySchemas{} }

// ObjectToTyped gives the object its schema.
func (*lazySchemas) ObjectToTyped(runtime.Object, ...typed.ValidationOptions) (*typed.TypedValue, error) {
	return nil, errNoSchema
}

// TypedToObject is its reverse.
func (*lazySchemas) TypedToObject(*typed.TypedValue) (runtime.Object, error) {
	return nil, errNoSchema
}
