// Package bench measures podlab on this machine: each figure beside its limit,
// and where the limit is a ratio, beside the peer that was measured in the
// same run. Absolute times drift on shared machines; the ratios hold.
//
// `podlab bench` is the only caller.
package bench

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// Row is one figure.
type Row struct {
	// What was measured, in words.
	What string `json:"what"`
	// Value in Unit ("ms", "MiB", "%", "×"); NaN is not allowed: a measurement
	// that failed has an Error in its place.
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	// Limit that Value must not exceed; 0 is a figure without one.
	Limit float64 `json:"limit,omitempty"`
	// Beside names the peer of a ratio and what both took.
	Beside string `json:"beside,omitempty"`
	Error  string `json:"error,omitempty"`
}

// Verdict is "ok", "over", "failed" or "-" where there is no limit.
func (r Row) Verdict() string {
	switch {
	case r.Error != "":
		return "failed"
	case r.Limit == 0:
		return "-"
	case r.Value > r.Limit:
		return "over"
	}
	return "ok"
}

// Print writes the rows as a table.
func Print(w io.Writer, rows []Row) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "WHAT\tGOT\tLIMIT\t\tBESIDE")
	for _, r := range rows {
		limit := ""
		if r.Limit != 0 {
			limit = "≤ " + figure(r.Limit) + " " + r.Unit
		}
		got := figure(r.Value) + " " + r.Unit
		if r.Error != "" {
			got = r.Error
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", r.What, got, limit, r.Verdict(), r.Beside)
	}
	return t.Flush()
}

// figure prints three significant digits without an exponent.
func figure(v float64) string {
	if v == 0 {
		return "0"
	}
	digits := max(0, 2-int(math.Floor(math.Log10(math.Abs(v)))))
	s := strconv.FormatFloat(v, 'f', digits, 64)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}

// percentile returns the p-th percentile (nearest rank) of values, which it sorts.
func percentile(values []float64, p float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	slices.Sort(values)
	rank := int(math.Ceil(p/100*float64(len(values)))) - 1
	return values[min(max(rank, 0), len(values)-1)]
}
