package launch

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// State is where a sandbox is in its life, as recorded on disk.
type State string

// The states of a record. What was creating or deleting when a server died is
// removed by the next.
const (
	StateCreating State = "creating"
	StateRunning  State = "running"
	// StateStopped: the agent ended; its directory is kept for a restart.
	StateStopped  State = "stopped"
	StateDeleting State = "deleting"
)

// Names of what a lab's directory holds.
const (
	recordFile = "launch.json"
	logFile    = "agent.log"
	pidFile    = "pid"
	bundleDir  = "bundle"
	runDir     = "run"
	runtimeDir = "runtime"
)

// record is the host's own account of a sandbox. It is on disk before
// anything that it names is made, and goes after all of it is gone.
type record struct {
	ID    string `json:"id"`
	State State  `json:"state"`
	// Boot is the kernel's boot id: process numbers mean nothing in another.
	Boot    string    `json:"boot"`
	Created time.Time `json:"created"`
	Slot    uint32    `json:"slot"`
	UIDBase uint32    `json:"uidBase"`
	// Runtime is the path of the OCI runtime that started the sandbox.
	Runtime string `json:"runtime"`
	// Binary is the base name in DATA/bin of the program that is PID 1.
	Binary  string        `json:"binary"`
	Cgroups []labCgroup   `json:"cgroups"`
	Limits  Limits        `json:"limits"`
	Init    processHandle `json:"init"`
	// Exit is how the agent ended, when stopped.
	Exit Exit `json:"exit,omitzero"`
}

// readRecord returns the record in dir; a directory whose record never came
// to be, or is not whole, gives errNoRecord.
func readRecord(dir string) (record, error) {
	var r record
	b, err := os.ReadFile(filepath.Join(dir, recordFile))
	if errors.Is(err, os.ErrNotExist) {
		return r, errNoRecord
	}
	if err != nil {
		return r, fmt.Errorf("cannot read the record of %s: %w", dir, err)
	}
	if err := json.Unmarshal(b, &r); err != nil || r.ID != filepath.Base(dir) {
		return r, errNoRecord
	}
	return r, nil
}

var errNoRecord = errors.New("no record")

// write puts the record in place in one step, so that a reader sees the old or
// the new one whole.
func (r *record) write(dir string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, recordFile+".new")
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("cannot record sandbox %s: %w", r.ID, err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, recordFile)); err != nil {
		return fmt.Errorf("cannot record sandbox %s: %w", r.ID, err)
	}
	return nil
}
