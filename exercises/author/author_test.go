package author

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"podlab/exercises"
	"podlab/lab"
)

// fakeLab is a lab in which a script's words open and close port 8080 of pod-a.
type fakeLab struct {
	port   uint16
	broken bool // undo does nothing
	lax    bool // any port looks like 8080
}

func (f *fakeLab) Facts(context.Context, map[string]lab.Probe) (lab.Facts, error) {
	pod := lab.PodFacts{}
	if f.port != 0 {
		port := f.port
		if f.lax {
			port = 8080
		}
		pod.Sockets = []lab.Socket{{Proto: "tcp", Addr: netip.IPv4Unspecified(), Port: port}}
	}
	return lab.Facts{Pods: map[string]lab.PodFacts{"default/pod-a": pod}}, nil
}
func (f *fakeLab) Apply(context.Context, string) error { return errors.New("nothing to apply") }
func (f *fakeLab) Run(_ context.Context, _ lab.Target, _ []string, input string) (string, int, error) {
	switch {
	case strings.Contains(input, "8080"):
		f.port = 8080
	case strings.Contains(input, "8081"):
		f.port = 8081
	case strings.Contains(input, "pkill") && !f.broken:
		f.port = 0
	}
	return "", 0, nil
}
func (f *fakeLab) Close() error { return nil }

// newExercise is what `podlab exercise new` makes, loaded and linted.
func newExercise(t *testing.T) *exercises.Exercise {
	t.Helper()
	dir := t.TempDir()
	if _, err := New(dir, "07-new-one"); err != nil {
		t.Fatal(err)
	}
	course, err := exercises.Load(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	if problems := course.Lint(); len(problems) > 0 {
		t.Fatal(problems)
	}
	return course.Get("07-new-one")
}

func TestPlay(t *testing.T) {
	e := newExercise(t)
	for name, tt := range map[string]struct {
		lab  fakeLab
		want string // in the error; empty is none
	}{
		"right":                    {},
		"passes in a fresh lab":    {lab: fakeLab{port: 8080}, want: "in a fresh lab"},
		"undo does not undo":       {lab: fakeLab{broken: true}, want: "after undoing"},
		"a wrong answer does pass": {lab: fakeLab{lax: true}, want: "after the wrong answer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := Player{
				Start: func(context.Context, *exercises.Exercise) (Lab, error) {
					l := tt.lab
					return &l, nil
				},
				Out: io.Discard, Settle: 500 * time.Millisecond,
			}
			err := p.Play(t.Context(), e)
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	dir := t.TempDir()
	for _, id := range []string{"new", "1-new", "01-New", "../01-new", "01-"} {
		if _, err := New(dir, id); err == nil {
			t.Errorf("New(%q) made an exercise", id)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	if _, err := New(dir, "01-new"); err != nil {
		t.Fatal(err)
	}
	if _, err := New(dir, "01-new"); err == nil {
		t.Error("New wrote over an exercise")
	}
}
