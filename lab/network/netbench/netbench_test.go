package netbench

import (
	"testing"

	"podlab/lab/labtest"
)

func TestMain(m *testing.M) { labtest.Main(m) }

// The figures are `podlab bench`'s to judge; here only that each way is
// measured.
func TestPrivilegedRun(t *testing.T) {
	labtest.Privileged(t)
	r, err := Run(t.Context(), 50)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d pods: bare %s, cold %s (%.2f), warm %s (%.2f of cold)", r.N, r.Bare, r.Cold, float64(r.Cold)/float64(r.Bare), r.Warm, float64(r.Warm)/float64(r.Cold))
	if r.Bare <= 0 || r.Cold <= 0 || r.Warm <= 0 {
		t.Errorf("not measured: %+v", r)
	}
	if _, err := Run(t.Context(), 0); err == nil {
		t.Error("0 pods are measured")
	}
}
