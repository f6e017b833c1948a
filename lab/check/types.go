package check

import (
	"fmt"
	"net/netip"
	"reflect"
	"sort"
	"strings"
	"time"

	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"

	"podlab/lab"
)

// The Go types of facts are CEL types under their JSON names: a struct is an
// object, netip.Addr and netip.Prefix are strings as they print (the zero
// value is ""), every integer is an int, time.Time a timestamp. So a typing
// error in an exercise is found when the exercise is loaded, not in a lesson.

var (
	addrType   = reflect.TypeFor[netip.Addr]()
	prefixType = reflect.TypeFor[netip.Prefix]()
	timeType   = reflect.TypeFor[time.Time]()
)

// object is a struct type that expressions can see.
type object struct {
	name   string
	cel    *types.Type
	fields map[string]*types.FieldType
	names  []string
}

// provider gives CEL the struct types reachable from lab.Facts, and turns
// their values into CEL values. It is immutable once made.
type provider struct {
	*types.Registry
	byName map[string]*object
	byType map[reflect.Type]*object
}

func newProvider() (*provider, error) {
	registry, err := types.NewRegistry()
	if err != nil {
		return nil, err
	}
	p := &provider{Registry: registry, byName: map[string]*object{}, byType: map[reflect.Type]*object{}}
	if _, err := p.celType(reflect.TypeFor[lab.Facts]()); err != nil {
		return nil, err
	}
	return p, nil
}

// celType is the CEL type of a Go type, declared with all that it contains.
func (p *provider) celType(t reflect.Type) (*types.Type, error) {
	switch t {
	case addrType, prefixType:
		return types.StringType, nil
	case timeType:
		return types.TimestampType, nil
	}
	switch t.Kind() {
	case reflect.String:
		return types.StringType, nil
	case reflect.Bool:
		return types.BoolType, nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return types.IntType, nil
	case reflect.Float32, reflect.Float64:
		return types.DoubleType, nil
	case reflect.Pointer:
		return p.celType(t.Elem())
	case reflect.Slice:
		elem, err := p.celType(t.Elem())
		if err != nil {
			return nil, err
		}
		return types.NewListType(elem), nil
	case reflect.Map:
		elem, err := p.celType(t.Elem())
		if err != nil {
			return nil, err
		}
		if t.Key().Kind() != reflect.String {
			return nil, fmt.Errorf("cannot declare %s: keys of facts are strings", t)
		}
		return types.NewMapType(types.StringType, elem), nil
	case reflect.Struct:
		return p.declare(t)
	}
	return nil, fmt.Errorf("cannot declare %s to CEL", t)
}

func (p *provider) declare(t reflect.Type) (*types.Type, error) {
	if o, ok := p.byType[t]; ok {
		return o.cel, nil
	}
	name := "lab." + t.Name()
	o := &object{name: name, cel: types.NewObjectType(name), fields: map[string]*types.FieldType{}}
	p.byType[t], p.byName[name] = o, o
	for _, f := range reflect.VisibleFields(t) {
		jsonName, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || jsonName == "" || jsonName == "-" {
			continue
		}
		ft, err := p.celType(f.Type)
		if err != nil {
			return nil, err
		}
		index := f.Index
		o.fields[jsonName] = &types.FieldType{
			Type:  ft,
			IsSet: func(target any) bool { return !structField(target, index).IsZero() },
			GetFrom: func(target any) (any, error) {
				return followed(structField(target, index)).Interface(), nil
			},
		}
		o.names = append(o.names, jsonName)
	}
	return o.cel, nil
}

// structField is a field of a struct or of what a pointer points to; a nil
// pointer reads as the zero struct, so that expressions need no guard.
func structField(target any, index []int) reflect.Value {
	return followed(reflect.ValueOf(target)).FieldByIndex(index)
}

func followed(v reflect.Value) reflect.Value {
	for v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v = reflect.Zero(v.Type().Elem())
		} else {
			v = v.Elem()
		}
	}
	return v
}

// FindStructType implements types.Provider.
func (p *provider) FindStructType(name string) (*types.Type, bool) {
	if o, ok := p.byName[name]; ok {
		return types.NewTypeTypeWithParam(o.cel), true
	}
	return p.Registry.FindStructType(name)
}

// FindStructFieldNames implements types.Provider.
func (p *provider) FindStructFieldNames(name string) ([]string, bool) {
	if o, ok := p.byName[name]; ok {
		return o.names, true
	}
	return p.Registry.FindStructFieldNames(name)
}

// FindStructFieldType implements types.Provider.
func (p *provider) FindStructFieldType(name, field string) (*types.FieldType, bool) {
	if o, ok := p.byName[name]; ok {
		f, ok := o.fields[field]
		return f, ok
	}
	return p.Registry.FindStructFieldType(name, field)
}

// NativeToValue implements types.Adapter.
func (p *provider) NativeToValue(value any) ref.Val {
	switch v := value.(type) {
	case ref.Val:
		return v
	case netip.Addr:
		if !v.IsValid() {
			return types.String("")
		}
		return types.String(v.String())
	case netip.Prefix:
		if !v.IsValid() {
			return types.String("")
		}
		return types.String(v.String())
	case time.Time:
		return types.Timestamp{Time: v}
	}
	rv := followed(reflect.ValueOf(value))
	if !rv.IsValid() {
		return types.NullValue
	}
	switch rv.Kind() {
	case reflect.String:
		return types.String(rv.String())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return types.Int(rv.Int())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return types.Int(rv.Uint()) // inode and port numbers are below 1<<63
	case reflect.Struct:
		if o, ok := p.byType[rv.Type()]; ok {
			return structValue{p: p, o: o, v: rv.Interface()}
		}
	case reflect.Slice:
		if p.ours(rv.Type().Elem()) {
			return types.NewDynamicList(p, rv.Interface())
		}
	case reflect.Map:
		if rv.Type().Key().Kind() == reflect.String && p.ours(rv.Type().Elem()) {
			return newOrderedMap(p, rv)
		}
	}
	return p.Registry.NativeToValue(value)
}

// ours reports whether values of t must go through our adapter.
func (p *provider) ours(t reflect.Type) bool {
	_, err := p.celType(t)
	return err == nil
}

// structValue is a struct of the facts as a CEL value.
type structValue struct {
	p *provider
	o *object
	v any
}

// ConvertToNative implements ref.Val.
func (s structValue) ConvertToNative(t reflect.Type) (any, error) {
	if rv := reflect.ValueOf(s.v); rv.Type().AssignableTo(t) {
		return s.v, nil
	}
	return nil, fmt.Errorf("cannot convert %s to %s", s.o.name, t)
}

// ConvertToType implements ref.Val.
func (s structValue) ConvertToType(t ref.Type) ref.Val {
	if t.TypeName() == s.o.name {
		return s
	}
	if t == types.TypeType {
		return s.o.cel
	}
	return types.NewErr("cannot convert %s to %s", s.o.name, t.TypeName())
}

// Equal implements ref.Val.
func (s structValue) Equal(other ref.Val) ref.Val {
	return types.Bool(reflect.DeepEqual(s.v, other.Value()))
}

// Type implements ref.Val.
func (s structValue) Type() ref.Type { return s.o.cel }

// Value implements ref.Val.
func (s structValue) Value() any { return s.v }

// Get implements traits.Indexer.
func (s structValue) Get(index ref.Val) ref.Val {
	f, err := s.field(index)
	if err != nil {
		return types.WrapErr(err)
	}
	v, err := f.GetFrom(s.v)
	if err != nil {
		return types.WrapErr(err)
	}
	return s.p.NativeToValue(v)
}

// IsSet implements traits.FieldTester.
func (s structValue) IsSet(index ref.Val) ref.Val {
	f, err := s.field(index)
	if err != nil {
		return types.WrapErr(err)
	}
	return types.Bool(f.IsSet(s.v))
}

func (s structValue) field(index ref.Val) (*types.FieldType, error) {
	name, ok := index.Value().(string)
	if !ok {
		return nil, fmt.Errorf("%s has no field %v", s.o.name, index.Value())
	}
	f, ok := s.o.fields[name]
	if !ok {
		return nil, fmt.Errorf("%s has no field %q", s.o.name, name)
	}
	return f, nil
}

// orderedMap is a map that is walked in the order of its keys, so that an
// expression gives the same answer each time.
type orderedMap struct {
	traits.Mapper
	keys traits.Lister
}

func newOrderedMap(p *provider, rv reflect.Value) ref.Val {
	keys := make([]string, 0, rv.Len())
	for _, k := range rv.MapKeys() {
		keys = append(keys, k.String())
	}
	sort.Strings(keys)
	return orderedMap{Mapper: types.NewDynamicMap(p, rv.Interface()), keys: types.NewStringList(p, keys)}
}

// Iterator implements traits.Iterable.
func (m orderedMap) Iterator() traits.Iterator { return m.keys.Iterator() }

var _ interface {
	ref.Val
	traits.Indexer
	traits.FieldTester
} = structValue{}

var _ types.Provider = (*provider)(nil)
