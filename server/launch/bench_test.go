package launch

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"podlab/lab/agentapi"
)

// BenchmarkSandbox measures what a learner waits for: until Create returns,
// until the agent's first line, until Delete returns, until nothing is left.
func BenchmarkSandbox(b *testing.B) {
	l := newLauncher(b, b.TempDir())
	var created, firstLine, deleted, gone []time.Duration
	for n := 0; b.Loop(); n++ {
		id := fmt.Sprintf("lab-%d", n)
		t0 := time.Now()
		if _, err := l.Create(b.Context(), Request{ID: id, Config: agentapi.Config{ID: id}}); err != nil {
			b.Fatal(err)
		}
		created = append(created, time.Since(t0))
		for {
			if st, err := os.Stat(filepath.Join(l.dir(id), logFile)); err == nil && st.Size() > 0 {
				break
			}
		}
		firstLine = append(firstLine, time.Since(t0))
		c := l.Gone(id)
		t0 = time.Now()
		if err := l.Delete(b.Context(), id); err != nil {
			b.Fatal(err)
		}
		deleted = append(deleted, time.Since(t0))
		<-c
		gone = append(gone, time.Since(t0))
	}
	for name, ds := range map[string][]time.Duration{"create": created, "first-line": firstLine, "delete": deleted, "gone": gone} {
		slices.Sort(ds)
		b.ReportMetric(ds[len(ds)/2].Seconds()*1e3, "p50-ms-"+name)
		b.ReportMetric(ds[len(ds)*95/100].Seconds()*1e3, "p95-ms-"+name)
	}
}

// BenchmarkFifty starts fifty sandboxes at once and takes them down again.
func BenchmarkFifty(b *testing.B) {
	l := newLauncher(b, b.TempDir())
	const labs = 50
	for b.Loop() {
		t0 := time.Now()
		var wg sync.WaitGroup
		for i := range labs {
			wg.Go(func() {
				id := fmt.Sprintf("lab-%d", i)
				if _, err := l.Create(b.Context(), Request{ID: id}); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
		b.ReportMetric(time.Since(t0).Seconds()*1e3, "ms-50-created")
		t0 = time.Now()
		for i := range labs {
			id := fmt.Sprintf("lab-%d", i)
			gone := l.Gone(id)
			if err := l.Delete(b.Context(), id); err != nil {
				b.Error(err)
			}
			wg.Go(func() { <-gone })
		}
		b.ReportMetric(time.Since(t0).Seconds()*1e3, "ms-50-delete-returned")
		wg.Wait()
		b.ReportMetric(time.Since(t0).Seconds()*1e3, "ms-50-gone")
	}
}
