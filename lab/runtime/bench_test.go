package runtime

import (
	"slices"
	"testing"
	"time"
)

func TestPrivilegedBenchStart(t *testing.T) {
	r := start(t)
	p := startPod(t, r, "pod-a")
	times, err := r.BenchStart(t.Context(), p, 20)
	if err != nil {
		t.Fatal(err)
	}
	if len(times.Ours) != 20 || len(times.Reference) != 20 {
		t.Fatalf("%d and %d times, want 20 each", len(times.Ours), len(times.Reference))
	}
	ours, reference := median(times.Ours), median(times.Reference)
	t.Logf("container start: %v, static C %v, %.2f times", ours, reference, float64(ours)/float64(reference))
	if ours <= 0 || reference <= 0 {
		t.Error("a start took no time")
	}
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}
