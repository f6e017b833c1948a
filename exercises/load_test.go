package exercises

import (
	"testing"

	"podlab/lab"
	"podlab/lab/check"
)

func TestEmbedded(t *testing.T) {
	course, err := Embedded()
	if err != nil {
		t.Fatal(err)
	}
	e := course.Get("01-three-containers")
	if e == nil {
		t.Fatal("01-three-containers is not in the course")
	}
	for _, task := range e.Tasks {
		for _, c := range task.Checks {
			got := c.Eval(lab.Facts{Probes: map[string]lab.ProbeResult{}})
			if got.Outcome == check.Pass {
				t.Errorf("%s passes on nothing", c.ID)
			}
		}
	}
}

func TestEmbeddedLint(t *testing.T) {
	course, err := Embedded()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range course.Lint() {
		t.Error(p)
	}
}
