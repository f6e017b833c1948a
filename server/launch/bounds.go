package launch

import (
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// What a lab may put on the host's disk: its agent's log and its run directory
// (journal, socket, config). Learners' processes see neither, so only an agent
// that was taken over can outgrow these.
const (
	boundsEvery = 5 * time.Second
	logBytes    = 1 << 20
	logKeep     = 128 << 10
	runBytes    = 256 << 20
	runFiles    = 10_000
)

// keepBounds looks at every sandbox's files now and then, and tries again what
// could not be removed.
func (l *Launcher) keepBounds() {
	tick := time.NewTicker(boundsEvery)
	defer tick.Stop()
	for {
		select {
		case <-l.closing:
			return
		case <-tick.C:
		}
		l.checkBounds()
	}
}

func (l *Launcher) checkBounds() {
	for _, sb := range l.all() {
		sb.mu.Lock()
		stuck := sb.stuck
		sb.stuck = false
		sb.mu.Unlock()
		if stuck {
			l.background.Go(func() { l.discard(sb) })
			continue
		}
		if err := trimLog(filepath.Join(sb.dir, logFile)); err != nil {
			l.log.Warn("cannot trim an agent's log", "lab", sb.id, "error", err)
		}
		if outgrown(filepath.Join(sb.dir, runDir)) {
			l.endOverfull(sb)
		}
	}
}

// trimLog keeps the end of a log that has grown too long. The agent writes in
// append mode, so it goes on at the new end.
func trimLog(path string) error {
	st, err := os.Lstat(path)
	if err != nil || st.Size() <= logBytes {
		return nil // not there (yet, or any more): nothing to trim
	}
	keep := tail(path, logKeep) + "\n"
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err = f.WriteString("[older lines were removed]\n" + keep)
	return err
}

// outgrown tells whether a directory holds more than it may. It stops counting
// as soon as that is clear.
func outgrown(dir string) bool {
	files, bytes := 0, int64(0)
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // changing under our eyes
		}
		files++
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
			bytes += info.Size()
		}
		if files > runFiles || bytes > runBytes {
			return fs.SkipAll
		}
		return nil
	})
	return files > runFiles || bytes > runBytes
}

func (l *Launcher) endOverfull(sb *sandbox) {
	sb.mu.Lock()
	defer sb.mu.Unlock()
	if sb.pidfd == nil || sb.rec.State != StateRunning {
		return
	}
	sb.overfull = true
	if err := kill(sb.pidfd); err != nil {
		l.log.Error("cannot end an agent whose directory is overfull", "lab", sb.id, "error", err)
	}
}
