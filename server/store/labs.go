package store

import (
	"context"
	"encoding/json"
	"fmt"

	"podlab/lab"
	"podlab/server/labs"
	"podlab/web/view"
)

var _ labs.Store = (*DB)(nil)

// Labs lists all labs, oldest first.
func (db *DB) Labs(ctx context.Context) ([]labs.Record, error) {
	return queryAll(ctx, db, "lab", scanLab,
		"SELECT id, owner, name, exercise, shape, manifests, phase, reason, instance, created_at FROM labs ORDER BY created_at, id")
}

func scanLab(scan func(...any) error) (labs.Record, error) {
	var r labs.Record
	var shape string
	var created int64
	if err := scan(&r.ID, &r.Owner, &r.Name, &r.Exercise, &shape, &r.Manifests, &r.Phase, &r.Reason, &r.Instance, &created); err != nil {
		return r, err
	}
	r.CreatedAt = fromMicros(created)
	if err := json.Unmarshal([]byte(shape), &r.Shape); err != nil {
		return r, fmt.Errorf("lab %s: cannot read its shape: %w", r.ID, err)
	}
	return r, nil
}

// AddLab adds a lab.
func (db *DB) AddLab(ctx context.Context, r labs.Record) error {
	shape, err := json.Marshal(r.Shape)
	if err != nil {
		return err
	}
	_, err = db.exec(ctx, "lab", "INSERT INTO labs (id, owner, name, exercise, shape, manifests, phase, reason, instance, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		r.ID, r.Owner, r.Name, r.Exercise, string(shape), r.Manifests, r.Phase, r.Reason, r.Instance, micros(r.CreatedAt))
	return err
}

// UpdateLab writes what changes of a lab.
func (db *DB) UpdateLab(ctx context.Context, r labs.Record) error {
	n, err := db.exec(ctx, "lab", "UPDATE labs SET phase = ?, reason = ?, instance = ? WHERE id = ?",
		r.Phase, r.Reason, r.Instance, r.ID)
	if err == nil && n == 0 {
		err = lab.Errorf(lab.CodeNotFound, "there is no such lab")
	}
	return err
}

// DeleteLab removes a lab; one that is gone is no error.
func (db *DB) DeleteLab(ctx context.Context, id string) error {
	_, err := db.exec(ctx, "lab", "DELETE FROM labs WHERE id = ?", id)
	return err
}

// SaveChecks remembers results; the time of the first pass stays.
func (db *DB) SaveChecks(ctx context.Context, user, exercise string, results []view.CheckResult) error {
	tx, err := db.write.BeginTx(ctx, nil)
	if err != nil {
		return wrap("progress", err)
	}
	defer tx.Rollback() // no effect after Commit
	for _, r := range results {
		var passed any
		if r.Status == view.CheckPass {
			passed = micros(r.At)
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO progress (user, exercise, task, check_id, status, passed_at, at) VALUES (?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT DO UPDATE SET status = excluded.status, at = excluded.at, passed_at = coalesce(passed_at, excluded.passed_at)`,
			user, exercise, r.Task, r.Check, r.Status, passed, micros(r.At))
		if err != nil {
			return wrap("progress", err)
		}
	}
	return wrapNil("progress", tx.Commit())
}

// CheckProgress is what a learner reached of one check.
type CheckProgress struct {
	User, Exercise, Task, Check string
	Status                      view.CheckStatus
	// Passed is set when the check was ever green.
	Passed bool
}

// Progress lists a user's progress.
func (db *DB) Progress(ctx context.Context, user string) ([]CheckProgress, error) {
	return queryAll(ctx, db, "progress", func(scan func(...any) error) (CheckProgress, error) {
		p := CheckProgress{User: user}
		err := scan(&p.Exercise, &p.Task, &p.Check, &p.Status, &p.Passed)
		return p, err
	}, "SELECT exercise, task, check_id, status, passed_at IS NOT NULL FROM progress WHERE user = ? ORDER BY exercise, task, check_id", user)
}
