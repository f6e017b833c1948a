package labs

import (
	"context"
	"time"

	"podlab/lab"
	"podlab/web/view"
)

// Record is what the store keeps of a lab.
type Record struct {
	ID    string
	Owner string // user id
	Name  string
	// Exercise that the lab is for, or empty.
	Exercise string
	// Shape is the wanted network, Manifests the Kubernetes documents that the
	// lab starts with.
	Shape     lab.Lab
	Manifests string
	Phase     lab.Phase
	Reason    string
	// Instance counts the starts, from 1.
	Instance  int
	CreatedAt time.Time
}

// Store keeps labs across restarts of the server. What the manager is about
// to do is written before it is done.
type Store interface {
	Labs(ctx context.Context) ([]Record, error)
	AddLab(ctx context.Context, r Record) error
	// UpdateLab writes phase, reason and instance.
	UpdateLab(ctx context.Context, r Record) error
	DeleteLab(ctx context.Context, id string) error
	// SaveChecks remembers a learner's results for an exercise.
	SaveChecks(ctx context.Context, user, exercise string, results []view.CheckResult) error
}
