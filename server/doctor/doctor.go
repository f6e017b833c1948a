// Package doctor finds out what a host offers for labs by trying it: kernel
// features in a throwaway user and network namespace, cgroups, the OCI runtime,
// idmapped mounts, and how many labs there is room for. It changes nothing.
//
// Callers are `podlab doctor` and the server at its start. Features are tried
// in a child of this very program: main must call ProbeMain when its first
// argument is ProbeCommand.
package doctor

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"
)

// State is the answer to whether something can be used.
type State string

// The three answers.
const (
	Works   State = "works"
	Absent  State = "absent"
	Unknown State = "unknown" // it could not be told; Found says why
)

// Check is one thing that was tried.
type Check struct {
	Group string `json:"group"`
	Name  string `json:"name"`
	State State  `json:"state"`
	// Required: without it there are no labs.
	Required bool `json:"required,omitempty"`
	// Found is what was seen: a version, a number, an error.
	Found string `json:"found,omitempty"`
	// Instead is what podlab uses in its place where it is absent.
	Instead string `json:"instead,omitempty"`
	// Fix is what to do to have it.
	Fix string `json:"fix,omitempty"`
}

// Groups in the order in which they are shown.
const (
	GroupHost    = "host"
	GroupSandbox = "sandbox"
	GroupLink    = "links"
	GroupTraffic = "traffic control"
	GroupFilter  = "packet filter"
	GroupProgram = "eBPF"
	GroupRoom    = "room"
)

// Report is what doctor found.
type Report struct {
	Checks []Check `json:"checks"`
	// Labs is how many labs fit, and Bound what bounds them.
	Labs  int           `json:"labs"`
	Bound string        `json:"bound"`
	Took  time.Duration `json:"tookNanoseconds"`
}

// OK says that labs can run: nothing that is required is known to be absent.
func (r Report) OK() bool {
	for _, c := range r.Checks {
		if c.Required && c.State == Absent {
			return false
		}
	}
	return true
}

// Get returns the check of a name, for callers that choose by a feature.
func (r Report) Get(name string) (Check, bool) {
	for _, c := range r.Checks {
		if c.Name == name {
			return c, true
		}
	}
	return Check{}, false
}

// Options say what to look at.
type Options struct {
	// Data is the server's data directory.
	Data string
	// RootFS is the labs' root file system; default DATA/rootfs/current.
	RootFS string
	// Runtime is an OCI runtime's name or path; empty: crun, else runc.
	Runtime string
}

// Run tries everything. It takes well under a second. What cannot be tried
// becomes a check that says so, never an error.
func Run(ctx context.Context, opt Options) Report {
	began := time.Now()
	var r Report
	r.Checks = append(r.Checks, hostChecks(ctx, opt)...)
	r.Checks = append(r.Checks, probeInChild(ctx)...)
	r.Checks = append(r.Checks, programChecks()...)
	room := lookAtRoom()
	r.Checks = append(r.Checks, room.checks...)
	r.Labs, r.Bound = room.labs()
	r.Took = time.Since(began)
	return r
}

// Print writes the report as a table for people.
func (r Report) Print(w io.Writer) error {
	var b strings.Builder
	b.WriteString(r.table())
	fmt.Fprintf(&b, "\nRoom for about %d labs; %s is what bounds them.\n", r.Labs, r.Bound)
	advice := ""
	for _, c := range r.Checks {
		if c.State != Works && c.Fix != "" {
			advice += "  " + c.Name + ": " + c.Fix + "\n"
		}
	}
	if advice != "" {
		b.WriteString("\nWhat to do:\n" + advice)
	}
	verdict := "Labs can run here."
	if !r.OK() {
		verdict = "Labs cannot run here: see what is MISSING."
	}
	fmt.Fprintf(&b, "\n%s (looked for %s)\n", verdict, r.Took.Round(time.Millisecond))
	_, err := io.WriteString(w, b.String())
	return err
}

// table has one line for each check, under the name of its group.
func (r Report) table() string {
	var names, marks int
	for _, c := range r.Checks {
		names, marks = max(names, len(c.Name)), max(marks, len(c.mark()))
	}
	var b strings.Builder
	group := ""
	for _, c := range r.Checks {
		if c.Group != group {
			group = c.Group
			b.WriteString(strings.ToUpper(group) + "\n")
		}
		line := fmt.Sprintf("  %-*s  %-*s  %s", names, c.Name, marks, c.mark(), c.says())
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return b.String()
}

func (c Check) mark() string {
	if c.State == Absent && c.Required {
		return "MISSING"
	}
	return string(c.State)
}

// says is the last column: what was found, and what stands in for it.
func (c Check) says() string {
	if c.State == Absent && c.Instead != "" {
		return "instead: " + c.Instead
	}
	return strings.Join(strings.Fields(c.Found), " ")
}
