package memstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"
)

// Resource is the view of one resource of a Store: what Kubernetes' registries
// call a storage.Interface.
type Resource struct {
	store     *Store
	table     *table
	codec     runtime.Codec
	newFunc   func() runtime.Object
	versioner storage.APIObjectVersioner
}

var _ storage.Interface = (*Resource)(nil)

// For gives the view of the resource whose keys begin with prefix ("/pods").
// codec encodes objects as they are kept and decodes them to what newFunc makes.
func (s *Store) For(prefix string, codec runtime.Codec, newFunc func() runtime.Object) *Resource {
	prefix = "/" + strings.Trim(prefix, "/") + "/"
	return &Resource{store: s, table: s.table(prefix), codec: codec, newFunc: newFunc}
}

// Versioner sets and reads resource versions of objects.
func (r *Resource) Versioner() storage.Versioner { return r.versioner }

// Create adds obj at key unless there is one.
func (r *Resource) Create(_ context.Context, key string, obj, out runtime.Object, ttl uint64) error {
	key, err := r.key(key, false)
	if err != nil {
		return err
	}
	if v, err := r.versioner.ObjectResourceVersion(obj); err == nil && v != 0 {
		return storage.ErrResourceVersionSetOnCreate
	}
	data, err := r.encode(obj)
	if err != nil {
		return err
	}
	e, done, err := r.store.commit(r.table, key, 0, data, r.expiry(&ttl))
	if err != nil {
		return writeError(err)
	}
	if !done {
		return storage.NewKeyExistsError(key, 0)
	}
	if out == nil {
		return nil
	}
	return r.decode(e, out)
}

// Get decodes the object at key into out.
func (r *Resource) Get(_ context.Context, key string, opts storage.GetOptions, out runtime.Object) error {
	key, err := r.key(key, false)
	if err != nil {
		return err
	}
	e, rv := r.store.get(r.table, key)
	if err := r.notOlder(opts.ResourceVersion, rv); err != nil {
		return err
	}
	switch {
	case e != nil:
		return r.decode(e, out)
	case opts.IgnoreNotFound:
		return runtime.SetZeroValue(out)
	}
	return storage.NewKeyNotFoundError(key, 0)
}

// GetList decodes the objects under key that match into list, in the order of
// their keys, at one version of the store.
func (r *Resource) GetList(_ context.Context, key string, opts storage.ListOptions, list runtime.Object) error {
	prefix, err := r.key(key, opts.Recursive)
	if err != nil {
		return err
	}
	at, start, err := storage.ValidateListOptions(prefix, r.versioner, opts)
	if err != nil {
		return err
	}
	entries, rv, err := r.store.snapshot(r.table, prefix, start, uint64(max(at, 0))) // not negative
	if err != nil {
		return listError(err, len(opts.Predicate.Continue) > 0, start, prefix)
	}
	if at <= 0 && opts.Predicate.Continue == "" {
		if err := r.notOlder(opts.ResourceVersion, rv); err != nil {
			return err
		}
	}
	if !opts.Recursive && (len(entries) == 0 || entries[0].key != prefix) {
		entries = nil
	} else if !opts.Recursive {
		entries = entries[:1]
	}
	items, err := itemsOf(list)
	if err != nil {
		return err
	}
	last, more := 0, false
	for i, e := range entries {
		if opts.Predicate.Limit > 0 && int64(items.Len()) >= opts.Predicate.Limit {
			more = true
			break
		}
		last = i
		obj, err := r.object(e)
		if err != nil {
			return err
		}
		ok, err := opts.Predicate.Matches(obj)
		if err != nil {
			return err
		}
		if ok {
			items.Set(reflect.Append(items, reflect.ValueOf(obj).Elem()))
		}
	}
	if items.IsNil() {
		items.Set(reflect.MakeSlice(items.Type(), 0, 0)) // encodes as [], not null
	}
	var next string
	var remaining *int64
	if more {
		next, remaining, err = storage.PrepareContinueToken(entries[last].key, prefix, int64(rv), int64(len(entries)), true, opts) // versions stay small
		if err != nil {
			return err
		}
	}
	return r.versioner.UpdateList(list, rv, next, remaining)
}

// GuaranteedUpdate replaces the object at key by what tryUpdate makes of it,
// again and again until nobody wrote in between.
func (r *Resource) GuaranteedUpdate(ctx context.Context, key string, out runtime.Object, ignoreNotFound bool,
	preconditions *storage.Preconditions, tryUpdate storage.UpdateFunc, _ runtime.Object) error {
	key, err := r.key(key, false)
	if err != nil {
		return err
	}
	for {
		if err := ctx.Err(); err != nil {
			return storage.NewTimeoutError(key, err.Error())
		}
		e, _ := r.store.get(r.table, key)
		cur, err := r.current(key, e, out, ignoreNotFound)
		if err != nil {
			return err
		}
		if err := preconditions.Check(key, cur); err != nil {
			return err
		}
		updated, ttl, err := r.try(e, cur, tryUpdate)
		if err != nil {
			return err
		}
		data, err := r.encode(updated)
		if err != nil {
			return err
		}
		if e != nil && bytes.Equal(data, e.data) {
			return r.decode(e, out)
		}
		expires := r.expiry(ttl)
		if ttl == nil && e != nil {
			expires = e.expires
		}
		written, done, err := r.store.commit(r.table, key, version(e), data, expires)
		if err != nil {
			return writeError(err)
		}
		if done {
			return r.decode(written, out)
		}
	}
}

// try calls tryUpdate with the current object and the rest of its life.
func (r *Resource) try(e *entry, cur runtime.Object, f storage.UpdateFunc) (runtime.Object, *uint64, error) {
	res := storage.ResponseMeta{ResourceVersion: version(e)}
	if e != nil && !e.expires.IsZero() {
		res.TTL = int64(e.expires.Sub(r.store.now()) / time.Second)
	}
	obj, ttl, err := f(cur, res)
	if err != nil {
		return nil, nil, err
	}
	if v, err := r.versioner.ObjectResourceVersion(obj); err != nil {
		return nil, nil, err
	} else if v != 0 && e == nil {
		return nil, nil, storage.ErrResourceVersionSetOnCreate
	}
	return obj, ttl, nil
}

func (r *Resource) current(key string, e *entry, like runtime.Object, ignoreNotFound bool) (runtime.Object, error) {
	if e != nil {
		return r.object(e)
	}
	if !ignoreNotFound {
		return nil, storage.NewKeyNotFoundError(key, 0)
	}
	v, err := conversion.EnforcePtr(like)
	if err != nil {
		return nil, err
	}
	return reflect.New(v.Type()).Interface().(runtime.Object), nil
}

// Delete removes the object at key and decodes what it was into out.
func (r *Resource) Delete(ctx context.Context, key string, out runtime.Object, preconditions *storage.Preconditions,
	validate storage.ValidateObjectFunc, _ runtime.Object, _ storage.DeleteOptions) error {
	key, err := r.key(key, false)
	if err != nil {
		return err
	}
	for {
		e, _ := r.store.get(r.table, key)
		cur, err := r.current(key, e, out, false)
		if err != nil {
			return err
		}
		if err := preconditions.Check(key, cur); err != nil {
			return err
		}
		if err := validate(ctx, cur); err != nil {
			return err
		}
		gone, done, err := r.store.commit(r.table, key, e.rv, nil, time.Time{})
		if err != nil {
			return writeError(err)
		}
		if done {
			return r.decode(&entry{key: key, rv: gone.rv, data: e.data}, out)
		}
	}
}

// Stats counts the objects.
func (r *Resource) Stats(context.Context) (storage.Stats, error) {
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	return storage.Stats{ObjectCount: int64(len(r.table.entries))}, nil
}

// ReadinessCheck fails once the store is closed.
func (r *Resource) ReadinessCheck() error {
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	if r.store.closed {
		return storage.ErrStorageNotReady
	}
	return nil
}

// RequestWatchProgress does nothing: watches are always up to date.
func (r *Resource) RequestWatchProgress(context.Context) error { return nil }

// GetCurrentResourceVersion is the version of the latest change to anything.
func (r *Resource) GetCurrentResourceVersion(context.Context) (uint64, error) {
	return r.store.Revision(), nil
}

// EnableResourceSizeEstimation does nothing: sizes are known.
func (r *Resource) EnableResourceSizeEstimation(storage.KeysFunc) error { return nil }

// CompactRevision is the version up to which changes are no longer known.
func (r *Resource) CompactRevision() int64 {
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	return int64(r.table.compacted) // versions stay small
}

func (r *Resource) key(key string, recursive bool) (string, error) {
	return storage.PrepareKey(r.table.prefix, key, recursive)
}

func (r *Resource) encode(obj runtime.Object) ([]byte, error) {
	if err := r.versioner.PrepareObjectForStorage(obj); err != nil {
		return nil, fmt.Errorf("cannot prepare object: %w", err)
	}
	return runtime.Encode(r.codec, obj)
}

func (r *Resource) decode(e *entry, out runtime.Object) error {
	if _, _, err := r.codec.Decode(e.data, nil, out); err != nil {
		return fmt.Errorf("cannot decode %s: %w", e.key, err)
	}
	return r.versioner.UpdateObject(out, e.rv)
}

func (r *Resource) object(e *entry) (runtime.Object, error) {
	obj := r.newFunc()
	return obj, r.decode(e, obj)
}

func (r *Resource) expiry(ttl *uint64) time.Time {
	if ttl == nil || *ttl == 0 {
		return time.Time{}
	}
	return r.store.now().Add(time.Duration(*ttl) * time.Second) // an hour or so
}

func (r *Resource) notOlder(asked string, rv uint64) error {
	want, err := r.versioner.ParseResourceVersion(asked)
	if err != nil {
		return apierrors.NewBadRequest(fmt.Sprintf("invalid resource version: %v", err))
	}
	if want > rv {
		return futureError(want, rv)
	}
	return nil
}

func itemsOf(list runtime.Object) (reflect.Value, error) {
	ptr, err := meta.GetItemsPtr(list)
	if err != nil {
		return reflect.Value{}, err
	}
	v, err := conversion.EnforcePtr(ptr)
	if err != nil || v.Kind() != reflect.Slice {
		return reflect.Value{}, fmt.Errorf("cannot list into %T: its items are no slice", list)
	}
	return v, nil
}

// The words of the real API server, see etcd3/errors.go.
const (
	listExpired     = "The resourceVersion for the provided list is too old."
	continueExpired = "The provided continue parameter is too old " +
		"to display a consistent list result. You can start a new list without " +
		"the continue parameter, or use the continue token in this response to " +
		"retrieve the remainder of the results. Continuing with the provided " +
		"token results in an inconsistent list - objects that were created, " +
		"modified, or deleted between the time the first chunk was returned " +
		"and now may show up in the list."
)

func listError(err error, paging bool, start, prefix string) error {
	if !errors.Is(err, errCompacted) {
		return err
	}
	if !paging {
		return apierrors.NewResourceExpired(listExpired)
	}
	expired := apierrors.NewResourceExpired(continueExpired)
	token, err := storage.EncodeContinue(start, prefix, -1)
	if err != nil {
		return err
	}
	expired.ErrStatus.Continue = token
	return expired
}

// writeError turns a refused write into an API error.
func writeError(err error) error {
	var limit *LimitError
	if errors.As(err, &limit) {
		return apierrors.NewRequestEntityTooLargeError(limit.Message)
	}
	return apierrors.NewInternalError(err)
}
