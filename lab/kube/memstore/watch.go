package memstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/storage"
)

// bookmarkEvery is how often a watcher that allows bookmarks learns the
// version that it is up to date with; the real watch cache does it each minute.
const bookmarkEvery = time.Minute

// watchBuffer are the events decoded ahead of a reader.
const watchBuffer = 16

// watcher delivers the changes after a version. It keeps no long queue: it reads the
// resource's window from where it stands, so a slow reader costs nothing, and
// one that falls out of the window is told so and closed.
type watcher struct {
	r      *Resource
	prefix string
	pred   storage.SelectionPredicate
	result chan watch.Event
	cancel context.CancelFunc
	done   chan struct{}
}

// Watch delivers the changes to keys under key after opts.ResourceVersion;
// without one, or when asked, the objects that exist come first.
func (r *Resource) Watch(ctx context.Context, key string, opts storage.ListOptions) (watch.Interface, error) {
	prefix, err := r.key(key, opts.Recursive)
	if err != nil {
		return nil, err
	}
	rv, err := r.versioner.ParseResourceVersion(opts.ResourceVersion)
	if err != nil {
		return nil, err
	}
	initial := opts.SendInitialEvents != nil && *opts.SendInitialEvents || opts.SendInitialEvents == nil && rv == 0
	var entries []*entry
	switch {
	case initial:
		if err := r.notOlder(opts.ResourceVersion, r.store.Revision()); err != nil {
			return nil, err
		}
		if entries, rv, err = r.store.snapshot(r.table, prefix, "", 0); err != nil {
			return nil, err
		}
	case rv == 0:
		rv = r.store.Revision()
	case rv > r.store.Revision():
		return nil, futureError(rv, r.store.Revision())
	}
	w := &watcher{r: r, prefix: prefix, pred: opts.Predicate, result: make(chan watch.Event, watchBuffer), done: make(chan struct{})}
	ctx, w.cancel = context.WithCancel(ctx)
	endMark := initial && opts.SendInitialEvents != nil && opts.Predicate.AllowWatchBookmarks
	go w.run(ctx, entries, rv, endMark)
	return w, nil
}

// ResultChan carries the events; it is closed when the watch ends.
func (w *watcher) ResultChan() <-chan watch.Event { return w.result }

// Stop ends the watch. It returns when its goroutine has.
func (w *watcher) Stop() {
	w.cancel()
	<-w.done
}

func (w *watcher) run(ctx context.Context, initial []*entry, rv uint64, endMark bool) {
	defer close(w.done)
	defer close(w.result)
	defer w.cancel()
	err := w.sendInitial(ctx, initial, rv, endMark)
	if err == nil {
		err = w.follow(ctx, rv)
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, errClosed) {
		status := apierrors.NewInternalError(err).ErrStatus
		var known apierrors.APIStatus
		if errors.As(err, &known) {
			status = known.Status()
		}
		_ = w.send(ctx, watch.Event{Type: watch.Error, Object: &status})
	}
}

func (w *watcher) sendInitial(ctx context.Context, initial []*entry, rv uint64, endMark bool) error {
	for _, e := range initial {
		obj, err := w.matching(e)
		if err != nil {
			return err
		}
		if obj == nil {
			continue
		}
		if err := w.send(ctx, watch.Event{Type: watch.Added, Object: obj}); err != nil {
			return err
		}
	}
	if endMark {
		return w.bookmark(ctx, rv, map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	}
	return nil
}

func (w *watcher) follow(ctx context.Context, rv uint64) error {
	var tick <-chan time.Time
	if w.pred.AllowWatchBookmarks {
		t := time.NewTicker(bookmarkEvery)
		defer t.Stop()
		tick = t.C
	}
	told := rv // the version that the reader knows of
	for {
		changes, now, changed, err := w.r.store.after(w.r.table, w.prefix, rv)
		if errors.Is(err, errCompacted) {
			return expired(rv, uint64(w.r.CompactRevision())) // not negative
		}
		if err != nil {
			return err
		}
		for _, c := range changes {
			sent, err := w.deliver(ctx, c)
			if err != nil {
				return err
			}
			if sent {
				told = c.rv
			}
			rv = c.rv
		}
		rv = max(rv, now)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-tick:
			if rv <= told {
				continue
			}
			if err := w.bookmark(ctx, rv, nil); err != nil {
				return err
			}
			told = rv
		}
	}
}

// deliver sends what the change means to one who sees only matching objects.
func (w *watcher) deliver(ctx context.Context, c change) (bool, error) {
	cur, err := w.matching(c.cur)
	if err != nil {
		return false, err
	}
	if cur != nil && c.prev == nil {
		return true, w.send(ctx, watch.Event{Type: watch.Added, Object: cur})
	}
	prev, err := w.matching(c.prev)
	if err != nil {
		return false, err
	}
	switch {
	case cur != nil && prev != nil:
		return true, w.send(ctx, watch.Event{Type: watch.Modified, Object: cur})
	case cur != nil:
		return true, w.send(ctx, watch.Event{Type: watch.Added, Object: cur})
	case prev != nil:
		// The last state, at the version of its end.
		if err := w.r.versioner.UpdateObject(prev, c.rv); err != nil {
			return false, err
		}
		return true, w.send(ctx, watch.Event{Type: watch.Deleted, Object: prev})
	}
	return false, nil
}

// matching decodes the entry; nil when there is none or it does not match.
func (w *watcher) matching(e *entry) (runtime.Object, error) {
	if e == nil {
		return nil, nil // no object, no error
	}
	obj, err := w.r.object(e)
	if err != nil {
		return nil, err
	}
	ok, err := w.pred.Matches(obj)
	if err != nil || !ok {
		return nil, err
	}
	return obj, nil
}

func (w *watcher) bookmark(ctx context.Context, rv uint64, annotations map[string]string) error {
	obj := w.r.newFunc()
	if err := w.r.versioner.UpdateObject(obj, rv); err != nil {
		return err
	}
	if annotations != nil {
		m, err := meta.Accessor(obj)
		if err != nil {
			return err
		}
		m.SetAnnotations(annotations)
	}
	return w.send(ctx, watch.Event{Type: watch.Bookmark, Object: obj})
}

func (w *watcher) send(ctx context.Context, e watch.Event) error {
	select {
	case w.result <- e:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func expiredMessage(asked, oldest uint64) string {
	return fmt.Sprintf("too old resource version: %d (%d)", asked, oldest)
}
