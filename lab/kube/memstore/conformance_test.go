package memstore

import (
	"context"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/api/apitesting"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apiserver/pkg/apis/example"
	examplev1 "k8s.io/apiserver/pkg/apis/example/v1"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"
)

// The tests that Kubernetes has for its own storage, run against this one.

var (
	scheme = runtime.NewScheme()
	codecs = serializer.NewCodecFactory(scheme)
)

func init() {
	metav1.AddToGroupVersion(scheme, metav1.SchemeGroupVersion)
	utilruntime.Must(example.AddToScheme(scheme))
	utilruntime.Must(examplev1.AddToScheme(scheme))
}

func newPods(t *testing.T) (*Store, *Resource) {
	t.Helper()
	s := New(DefaultLimits())
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, podsOf(s)
}

func podsOf(s *Store) *Resource {
	return s.For("/pods", apitesting.TestCodec(codecs, examplev1.SchemeGroupVersion), func() runtime.Object { return &example.Pod{} })
}

// clean checks that what is kept has no version of its own.
func clean(r *Resource) storagetesting.KeyValidation {
	return func(_ context.Context, t *testing.T, key string) {
		e, _ := r.store.get(r.table, key)
		if e == nil {
			t.Fatalf("nothing is kept at %s", key)
		}
		obj, err := runtime.Decode(r.codec, e.data)
		if err != nil {
			t.Fatal(err)
		}
		if p, ok := obj.(*example.Pod); !ok || p.ResourceVersion != "" {
			t.Errorf("kept is %+v", obj)
		}
	}
}

func compaction(r *Resource) storagetesting.Compaction {
	return func(_ context.Context, t *testing.T, version string) {
		rv, err := r.versioner.ParseResourceVersion(version)
		if err != nil {
			t.Fatal(err)
		}
		r.store.mu.Lock()
		defer r.store.mu.Unlock()
		r.table.compacted = rv
		r.store.rv++ // etcd notes a compaction as a write
		r.table.window = slices.DeleteFunc(r.table.window, func(c change) bool { return c.rv <= rv })
	}
}

func increaseRV(s *Store) storagetesting.IncreaseRVFunc {
	return func(context.Context, *testing.T) int64 {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.rv++
		return int64(s.rv)
	}
}

func noCalls(*testing.T, uint64, uint64) {}

func TestConformance(t *testing.T) {
	tests := []struct {
		name string
		run  func(context.Context, *testing.T, *Store, *Resource)
	}{
		{"Create", func(ctx context.Context, t *testing.T, _ *Store, r *Resource) {
			storagetesting.RunTestCreate(ctx, t, r, clean(r))
		}},
		{"CreateWithKeyExist", func(ctx context.Context, t *testing.T, _ *Store, r *Resource) {
			storagetesting.RunTestCreateWithKeyExist(ctx, t, r)
		}},
		{"Get", func(ctx context.Context, t *testing.T, _ *Store, r *Resource) { storagetesting.RunTestGet(ctx, t, r) }},
		{"UnconditionalDelete", func(ctx context.Context, t *testing.T, _ *Store, r *Resource) {
			storagetesting.RunTestUnconditionalDelete(ctx, t, r)
		}},
		{"ConditionalDelete", func(ctx context.Context, t *testing.T, _ *Store, r *Resource) {
			storagetesting.RunTestConditionalDelete(ctx, t, r)
		}},
		{"DeleteWithSuggestion", func(ctx context.Context, t *testing.T, _ *Store, r *Resource) {
			storagetesting.RunTestDeleteWithSuggestion(ctx, t, r)
		}},
		{"DeleteWithSuggestionAndConflict", func(ctx context.Context, t *testing.T, _ *Store, r *Resource) {
			storagetesting.RunTestDeleteWithSuggestionAndConflict(ctx, t, r)
		}},
		{"DeleteWithConflict", func(ctx context.Context, t *testing.T, _ *Store, r *Resource) {
			storagetesting.RunTestDeleteWithConflict(ctx, t, r)
		}},
		{"DeleteWithSuggestionOfDeletedObject", func(ctx context.Context, t *testing.T, _ *Store, r *Resource) {
			storagetesting.RunTestDeleteWithSuggestionOfDeletedObject(ctx, t, r)
		}},
		{"ValidateDeletionWithSuggestion", func(ctx context.Context, t *testing.T, _ *Store, r *Resource) {
			storagetesting.RunTestValidateDeletionWithSuggestion(ctx, t, r)
		}},
		{"PreconditionalDeleteWithSuggestion", func(ctx context.Context, t *testing.T, _ *Store, r *Resource) {
			storagetesting.RunTestPreconditionalDeleteWithSuggestion(ctx, t, r)
		}},
		{"List", func(ctx context.Context, t *testing.T, _ *Store, r *Resource) {
			storagetesting.RunTestList(ctx, t, r, compaction(r), false, nil)
		}},
		{"ConsistentList", func(ctx context.Context, t *testing.T, s *Store, r *Resource) {
			storagetesting.RunTestConsistentList(ctx, t, r, increaseRV(s), false, true, false)
		}},
		{"GetListNonRecursive", func(ctx context.Context, t *testing.T, s *Store, r *Resource) {
			storagetesting.RunTestGetListNonRecursive(ctx, t, increaseRV(s), r)
		}},
		{"GetListRecursivePrefix", func(ctx context.Context, t *testing.T, _ *Store, r *Resource) {
			storagetesting.RunTestGetListRecursivePrefix(ctx, t, r)
		}},
		{"ListPaging", func(ctx context.Context, t *testing.T, _ *Store, r *Resource) {
			storagetesting.RunTestListPaging(ctx, t, r)
		}},
		{"ListContinuation", func(ctx context.Context, t *testing.T, _ *Store, r *Resource) {
			storagetesting.RunTestListContinuation(ctx, t, r, noCalls)
		}},
		{"ListPaginationRareObject", func(ctx context.Context, t *testing.T, _ *Store, r *Resource) {
			storagetesting.RunTestListPaginationRareObject(ctx, t, r, noCalls)
		}},
		{"ListContinuationWithFilter", func(ctx context.Context, t *testing.T, _ *Store, r *Resource) {
			storagetesting.RunTestListContinuationWithFilter(ctx, t, r, noCalls)
		}},
		{"ListInconsistentContinuation", func(ctx context.Context, t *testing.T, _ *Store, r *Resource) {
			storagetesting.RunTestListInconsistentContinuation(ctx, t, r, compaction(r))
		}},
		{"GuaranteedUpdateWithConflict", func(ctx context.Context, t *testing.T, _ *Store, r *Resource) {
			storagetesting.RunTestGuaranteedUpdateWithConflict(ctx, t, r)
		}},
		{"GuaranteedUpdateWithSuggestionAndConflict", func(ctx context.Context, t *testing.T, _ *Store, r *Resource) {
			storagetesting.RunTestGuaranteedUpdateWithSuggestionAndConflict(ctx, t, r)
		}},
		{"NamespaceScopedList", func(ctx context.Context, t *testing.T, _ *Store, r *Resource) {
			storagetesting.RunTestNamespaceScopedList(ctx, t, r)
		}},
		{"CompactRevision", func(ctx context.Context, t *testing.T, s *Store, r *Resource) {
			storagetesting.RunTestCompactRevision(ctx, t, r, increaseRV(s), compaction(r))
		}},
		{"KeySchema", func(ctx context.Context, t *testing.T, _ *Store, r *Resource) {
			storagetesting.RunTestKeySchema(ctx, t, r)
		}},
		{"Watch", func(ctx context.Context, t *testing.T, _ *Store, r *Resource) { storagetesting.RunTestWatch(ctx, t, r) }},
		{"WatchFromZero", func(ctx context.Context, t *testing.T, _ *Store, r *Resource) {
			storagetesting.RunTestWatchFromZero(ctx, t, r, compaction(r))
		}},
		{"DeleteTriggerWatch", func(ctx context.Context, t *testing.T, _ *Store, r *Resource) {
			storagetesting.RunTestDeleteTriggerWatch(ctx, t, r)
		}},
		{"WatchFromNonZero", func(ctx context.Context, t *testing.T, _ *Store, r *Resource) {
			storagetesting.RunTestWatchFromNonZero(ctx, t, r)
		}},
		{"DelayedWatchDelivery", func(ctx context.Context, t *testing.T, _ *Store, r *Resource) {
			storagetesting.RunTestDelayedWatchDelivery(ctx, t, r)
		}},
		{"WatchContextCancel", func(ctx context.Context, t *testing.T, _ *Store, r *Resource) {
			storagetesting.RunTestWatchContextCancel(ctx, t, r)
		}},
		{"WatchDeleteEventObjectHaveLatestRV", func(ctx context.Context, t *testing.T, _ *Store, r *Resource) {
			storagetesting.RunTestWatchDeleteEventObjectHaveLatestRV(ctx, t, r)
		}},
		{"ClusterScopedWatch", func(ctx context.Context, t *testing.T, _ *Store, r *Resource) {
			storagetesting.RunTestClusterScopedWatch(ctx, t, r)
		}},
		{"NamespaceScopedWatch", func(ctx context.Context, t *testing.T, _ *Store, r *Resource) {
			storagetesting.RunTestNamespaceScopedWatch(ctx, t, r)
		}},
		{"SendInitialEventsBackwardCompatibility", func(ctx context.Context, t *testing.T, _ *Store, r *Resource) {
			storagetesting.RunSendInitialEventsBackwardCompatibility(ctx, t, r)
		}},
		{"WatchSemantics", func(ctx context.Context, t *testing.T, _ *Store, r *Resource) {
			storagetesting.RunWatchSemantics(ctx, t, r)
		}},
		{"WatchSemanticInitialEventsExtended", func(ctx context.Context, t *testing.T, _ *Store, r *Resource) {
			storagetesting.RunWatchSemanticInitialEventsExtended(ctx, t, r)
		}},
		{"WatchListMatchSingle", func(ctx context.Context, t *testing.T, _ *Store, r *Resource) {
			storagetesting.RunWatchListMatchSingle(ctx, t, r)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, r := newPods(t)
			tt.run(t.Context(), t, s, r)
		})
	}
}
