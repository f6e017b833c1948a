// Package author is for those who write exercises: it plays an exercise in a
// real lab and makes new ones. Its callers give it the labs.
package author

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"podlab/exercises"
	"podlab/lab"
	"podlab/lab/check"
)

// Lab is one running lab that an exercise is played in.
type Lab interface {
	Facts(ctx context.Context, probes map[string]lab.Probe) (lab.Facts, error)
	Apply(ctx context.Context, manifests string) error
	// Run runs a command with input and returns what it wrote to both outputs.
	// A command that ends with another code than 0 is not an error.
	Run(ctx context.Context, place lab.Target, command []string, input string) (output string, exitCode int, err error)
	// Close deletes the lab.
	Close() error
}

// Starter makes a lab for an exercise and waits until it is ready: its default
// pods run and its manifests are applied.
type Starter func(ctx context.Context, e *exercises.Exercise) (Lab, error)

// Player plays exercises.
type Player struct {
	Start Starter
	// Out is told what is done and found, line by line.
	Out io.Writer
	// Settle bounds how long checks may take to reach what is expected.
	Settle time.Duration
	// Stay is how long they must then stay so: none may have an outcome by
	// chance while the lab still settles.
	Stay time.Duration
}

// again is how long the player waits before it looks at a lab again.
const again = 100 * time.Millisecond

// Play plays one exercise: in a fresh lab each check must fail; after the
// solution each must pass; after undo.sh each must fail again. Then each
// wrong-NAME.sh in a lab of its own: the checks that it names must not pass.
// The error says all that was otherwise.
func (p *Player) Play(ctx context.Context, e *exercises.Exercise) error {
	err := p.inLab(ctx, e, "solution", func(s *session) error {
		if err := s.expect(ctx, "in a fresh lab", e.CheckIDs(), check.Fail); err != nil {
			return err
		}
		if err := s.script(ctx, "solution.sh"); err != nil {
			return err
		}
		if err := s.expect(ctx, "after the solution", e.CheckIDs(), check.Pass); err != nil {
			return err
		}
		if err := s.script(ctx, "undo.sh"); err != nil {
			return err
		}
		return s.expect(ctx, "after undoing", e.CheckIDs(), check.Fail)
	})
	for _, name := range e.WrongScripts() {
		err = errors.Join(err, p.inLab(ctx, e, name, func(s *session) error { return s.wrong(ctx, name) }))
	}
	return err
}

// session is one lab in which one play goes on.
type session struct {
	*Player
	e    *exercises.Exercise
	lab  Lab
	name string
}

func (p *Player) inLab(ctx context.Context, e *exercises.Exercise, name string, play func(*session) error) error {
	started := time.Now()
	l, err := p.Start(ctx, e)
	if err != nil {
		return fmt.Errorf("%s: %s: cannot start a lab: %w", e.ID, name, err)
	}
	s := &session{Player: p, e: e, lab: l, name: name}
	s.say("lab ready in %d ms", time.Since(started).Milliseconds())
	err = play(s)
	if closeErr := l.Close(); closeErr != nil {
		err = errors.Join(err, fmt.Errorf("cannot delete the lab: %w", closeErr))
	}
	if err != nil {
		return fmt.Errorf("%s: %s: %w", e.ID, name, err)
	}
	s.say("as it should be, %.1f s", time.Since(started).Seconds())
	return nil
}

func (s *session) say(format string, args ...any) {
	_, _ = fmt.Fprintf(s.Out, "%s: %s: %s\n", s.e.ID, s.name, fmt.Sprintf(format, args...)) // progress only
}

// script plays a script of the exercise.
func (s *session) script(ctx context.Context, name string) error {
	script, err := s.e.Script(name)
	if err != nil {
		return err
	}
	return s.steps(ctx, name, script)
}

func (s *session) steps(ctx context.Context, name string, script *exercises.Script) error {
	for _, step := range script.Steps {
		if err := s.step(ctx, step); err != nil {
			return fmt.Errorf("%s:%d: %w", name, step.Line, err)
		}
	}
	return nil
}

func (s *session) step(ctx context.Context, step exercises.Step) error {
	switch {
	case step.Apply != "":
		return s.lab.Apply(ctx, step.Manifest)
	case len(step.Wait) > 0:
		return s.expect(ctx, "wait", step.Wait, check.Pass)
	}
	facts, err := s.lab.Facts(ctx, nil)
	if err != nil {
		return err
	}
	place, err := step.Place(facts.State.Pods)
	if err != nil {
		return err
	}
	out, code, err := s.lab.Run(ctx, place, []string{"bash", "-euo", "pipefail", "-s"}, prelude+step.Text)
	if err != nil {
		return fmt.Errorf("cannot run on %s: %w", place, err)
	}
	if code != 0 {
		return fmt.Errorf("on %s: ended with %d:\n%s", place, code, strings.TrimSpace(out))
	}
	return nil
}

// prelude is what scripts can use. background starts a program that outlives
// the script: it returns when the program leads a session of its own, since
// what is left of the script's session is killed.
const prelude = `background() {
  setsid "$@" </dev/null >/dev/null 2>&1 &
  while kill -0 $! 2>/dev/null && [ "$(ps -o sid= -p $!)" -ne $! ]; do :; done
}
`

// wrong plays a wrong answer and looks that it does not pass.
func (s *session) wrong(ctx context.Context, name string) error {
	script, err := s.e.Script(name)
	if err != nil {
		return err
	}
	if script.AfterSolution {
		if err := s.script(ctx, "solution.sh"); err != nil {
			return err
		}
		if err := s.expect(ctx, "after the solution", s.e.CheckIDs(), check.Pass); err != nil {
			return err
		}
	}
	if err := s.steps(ctx, name, script); err != nil {
		return err
	}
	return s.expect(ctx, "after the wrong answer", script.Red, check.Fail)
}

// expect waits until every check named has the outcome wanted, and stays so.
func (s *session) expect(ctx context.Context, when string, ids []string, want check.Outcome) error {
	ctx, cancel := context.WithTimeout(ctx, s.Settle)
	defer cancel()
	ticker := time.NewTicker(again)
	defer ticker.Stop()
	var since time.Time // of the outcome wanted
	var results map[string]check.Result
	for {
		latest, err := s.evaluate(ctx, ids)
		switch {
		case err != nil && ctx.Err() == nil:
			return fmt.Errorf("%s: %w", when, err)
		case err != nil: // out of time; what was seen last is told
		case all(latest, want):
			if since.IsZero() {
				since = time.Now()
			}
			if time.Since(since) >= s.Stay {
				s.say("%s: %s %s", when, plural(len(ids)), word(want))
				return nil
			}
			results = latest
		default:
			since, results = time.Time{}, latest
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("%s, within %s: %w", when, s.Settle, unexpected(results, ids, want))
		}
	}
}

// evaluate reads facts for these checks and evaluates them.
func (s *session) evaluate(ctx context.Context, ids []string) (map[string]check.Result, error) {
	probes := map[string]lab.Probe{}
	for _, id := range ids {
		for probe, p := range s.e.Check(id).Probes() {
			probes[id+"."+probe] = p
		}
	}
	facts := lab.Facts{}
	got := map[string]lab.ProbeResult{}
	for chunk := range slices.Chunk(sorted(probes), lab.MaxProbes) {
		part := map[string]lab.Probe{}
		for _, name := range chunk {
			part[name] = probes[name]
		}
		var err error
		if facts, err = s.lab.Facts(ctx, part); err != nil {
			return nil, err
		}
		for name, r := range facts.Probes {
			got[name] = r
		}
	}
	if len(probes) == 0 {
		var err error
		if facts, err = s.lab.Facts(ctx, nil); err != nil {
			return nil, err
		}
	}
	results := map[string]check.Result{}
	for _, id := range ids {
		facts.Probes = map[string]lab.ProbeResult{}
		for probe := range s.e.Check(id).Probes() {
			if r, ok := got[id+"."+probe]; ok {
				facts.Probes[probe] = r
			}
		}
		results[id] = s.e.Check(id).Eval(facts)
	}
	return results, nil
}

func all(results map[string]check.Result, want check.Outcome) bool {
	for _, r := range results {
		if r.Outcome != want {
			return false
		}
	}
	return true
}

// unexpected lists the checks that are otherwise, with what they saw.
func unexpected(results map[string]check.Result, ids []string, want check.Outcome) error {
	var errs []error
	for _, id := range ids {
		if r, ok := results[id]; !ok {
			errs = append(errs, fmt.Errorf("check %s was not evaluated", id))
		} else if r.Outcome != want {
			errs = append(errs, fmt.Errorf("check %s must %s but is %q; wanted: %s; saw: %s", id, want, r.Outcome, r.Want.EN, r.Got.EN))
		}
	}
	return errors.Join(errs...)
}

func sorted(m map[string]lab.Probe) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func plural(n int) string {
	if n == 1 {
		return "1 check"
	}
	return fmt.Sprintf("%d checks", n)
}

func word(o check.Outcome) string {
	if o == check.Pass {
		return "green"
	}
	return "red"
}
