package bench

import (
	"bytes"
	"strings"
	"testing"
)

func TestTableSaysWhatIsOver(t *testing.T) {
	rows := []Row{
		{What: "start", Value: 212.4, Unit: "ms", Limit: 250},
		{What: "memory", Value: 31.26, Unit: "MiB", Limit: 25},
		{What: "pod network", Value: 1.2345, Unit: "×", Limit: 1.3, Beside: "bare 1.3 ms, ours 1.6 ms"},
		{What: "size", Value: 12, Unit: "MiB"},
		{What: "delete", Limit: 50, Unit: "ms", Error: "no lab"},
	}
	var b bytes.Buffer
	if err := Print(&b, rows); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")[1:]
	for i, want := range [][]string{{"212 ms", "≤ 250 ms", "ok"}, {"31.3 MiB", "over"}, {"1.23 ×", "ok", "bare"}, {"12 MiB", "-"}, {"no lab", "failed"}} {
		for _, w := range want {
			if !strings.Contains(lines[i], w) {
				t.Errorf("line %q lacks %q", lines[i], w)
			}
		}
	}
}

func TestPercentile(t *testing.T) {
	v := []float64{5, 1, 4, 2, 3}
	for p, want := range map[float64]float64{0: 1, 50: 3, 95: 5, 20: 1, 21: 2, 100: 5} {
		if got := percentile(v, p); got != want {
			t.Errorf("p%v = %v, want %v", p, got, want)
		}
	}
}
