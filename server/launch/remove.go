package launch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// patience is how long killed processes may take to end. A process in the
// middle of an uninterruptible operation can make the kernel that slow.
const patience = 30 * time.Second

// discard removes all that is left of a sandbox, then forgets it. The order
// keeps the record readable until nothing but the directory is left.
func (l *Launcher) discard(sb *sandbox) {
	if err := l.remove(sb); err != nil {
		// The record stays and says deleting; keepBounds or the next server's
		// Recover tries again.
		l.log.Error("cannot remove a sandbox", "lab", sb.id, "error", err)
		sb.mu.Lock()
		sb.stuck = true
		sb.mu.Unlock()
		return
	}
	sb.release()
	l.mu.Lock()
	delete(l.boxes, sb.id)
	delete(l.slots, sb.rec.Slot)
	l.mu.Unlock()
	close(sb.gone)
}

// remove is done when the host shows nothing of the sandbox any more. It may
// be called on whatever a dead server left behind.
func (l *Launcher) remove(sb *sandbox) error {
	if pidfd, err := l.openInit(sb); err == nil {
		// PID 1 ends after every process of its PID namespace.
		err = errors.Join(kill(pidfd), pidfd.SetReadDeadline(time.Now().Add(patience)))
		if err == nil {
			err = await(pidfd)
		}
		reap(pidfd)
		pidfd.Close()
		if err != nil {
			return err
		}
	}
	step("delete: PID 1 ended")
	if err := removeCgroups(sb.rec.Cgroups); err != nil {
		return err
	}
	step("delete: cgroups removed")
	if err := removeDir(sb.dir); err != nil {
		return fmt.Errorf("cannot remove %s: %w", sb.dir, err)
	}
	reapOrphans()
	step("delete: directory removed")
	return nil
}

// openInit returns a pidfd of PID 1, for this call alone.
func (l *Launcher) openInit(sb *sandbox) (*os.File, error) {
	sb.mu.Lock()
	defer sb.mu.Unlock()
	if sb.rec.Boot != l.boot {
		return nil, errGone
	}
	return sb.rec.Init.open()
}

// removeCgroups kills what still lives in the groups and removes them. The
// kernel gives no event for an empty v1 group, hence the short pauses.
func removeCgroups(groups []labCgroup) error {
	deadline := time.Now().Add(patience)
	pause := time.Millisecond
	for {
		var errs []error
		for _, g := range groups {
			if err := g.remove(); err != nil {
				errs = append(errs, err, g.killAll(time.Until(deadline)))
			}
		}
		err := errors.Join(errs...)
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes do not end: %w", err)
		}
		<-time.After(pause)
		pause = min(2*pause, 50*time.Millisecond)
	}
}

// removeDir removes the directory; the record is the last to go, so that a
// half-removed directory still says what it is.
func removeDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == recordFile {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
		step("delete: part of the directory removed")
	}
	return os.RemoveAll(dir)
}

// release lets go of what this process holds of the sandbox.
func (sb *sandbox) release() {
	sb.mu.Lock()
	defer sb.mu.Unlock()
	if sb.pidfd != nil {
		sb.pidfd.Close()
		sb.pidfd = nil
	}
}

// Recover takes over what an earlier server left: sandboxes that were running
// are watched again, those whose agent ended are kept as stopped, all others
// are removed. It returns when that is done; what cannot be removed is logged
// and tried again later.
func (l *Launcher) Recover(ctx context.Context) ([]Sandbox, error) {
	entries, err := os.ReadDir(l.labs())
	if err != nil {
		return nil, fmt.Errorf("cannot list the labs: %w", err)
	}
	var errs []error
	var removals sync.WaitGroup
	for _, e := range entries {
		sb, err := l.adopt(e.Name())
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if sb != nil && (sb.rec.State == StateCreating || sb.rec.State == StateDeleting) {
			removals.Go(func() { l.discard(sb) })
		}
	}
	removals.Wait() // bounded: each gives up after a while
	errs = append(errs, ctx.Err())
	errs = append(errs, l.dropUnused())
	return l.List(), errors.Join(errs...)
}

// adopt reads one directory of an earlier server. What has no record had
// nothing made for it yet, or nothing left.
func (l *Launcher) adopt(name string) (*sandbox, error) {
	l.mu.Lock()
	_, known := l.boxes[name]
	l.mu.Unlock()
	if known {
		return nil, nil
	}
	rec, err := readRecord(l.dir(name))
	if errors.Is(err, errNoRecord) {
		return nil, os.RemoveAll(l.dir(name))
	}
	if err != nil {
		return nil, err
	}
	sb := l.newSandbox(rec)
	switch rec.State {
	case StateRunning:
		err = l.retake(sb)
	case StateStopped:
		sb.exit = rec.Exit
		close(sb.ended)
		err = l.clear(sb) // of a stop or restart that did not come to its end
	}
	l.mu.Lock()
	l.boxes[rec.ID], l.slots[rec.Slot] = sb, rec.ID
	l.mu.Unlock()
	return sb, err
}

// retake watches a running sandbox again, or notes that its agent ended while
// no server was there.
func (l *Launcher) retake(sb *sandbox) error {
	pidfd, err := l.openInit(sb)
	if errors.Is(err, errGone) {
		reason := "the agent ended while the server was not running"
		if sb.rec.Boot != l.boot {
			reason = "the host was started anew"
		}
		l.noteEnd(sb, Exit{Reason: reason})
		return l.clear(sb)
	}
	if err != nil {
		return err
	}
	sb.pidfd = pidfd
	l.watch(sb)
	return nil
}

// dropUnused removes programs of earlier versions that no lab runs.
func (l *Launcher) dropUnused() error {
	used := map[string]bool{l.binary: true}
	l.mu.Lock()
	for _, sb := range l.boxes {
		used[sb.rec.Binary] = true
	}
	l.mu.Unlock()
	return dropBinaries(l.bin(), used)
}
