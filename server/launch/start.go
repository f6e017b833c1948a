package launch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"podlab/lab"
	"podlab/lab/agentapi"
)

func (l *Launcher) create(ctx context.Context, sb *sandbox, req Request) error {
	if err := os.Mkdir(sb.dir, 0o711); err != nil {
		return fmt.Errorf("cannot make its directory: %w", err)
	}
	step("create: directory made")
	if err := sb.rec.write(sb.dir); err != nil {
		return err
	}
	step("create: intent recorded")
	if err := l.makeRunDir(sb, req.Config); err != nil {
		return err
	}
	step("create: run directory made")
	return l.start(ctx, sb)
}

// makeRunDir makes the directory that the lab sees, with the agent's config.
func (l *Launcher) makeRunDir(sb *sandbox, cfg agentapi.Config) error {
	run := filepath.Join(sb.dir, runDir)
	if err := os.Mkdir(run, 0o700); err != nil {
		return err
	}
	uid := int(sb.rec.UIDBase)
	return errors.Join(writeConfig(run, sb.rec.UIDBase, cfg), os.Chown(run, uid, uid))
}

// writeConfig puts the agent's config in place of whatever is there.
func writeConfig(run string, owner uint32, cfg agentapi.Config) error {
	b, err := json.Marshal(cfg)
	if err != nil {
		return err
	}
	path := filepath.Join(run, agentapi.ConfigFile)
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Chown(int(owner), int(owner)), f.Close())
}

// makeCgroups makes the lab's groups. Groups that are there already are left
// from a restart or from a data directory that was removed by hand.
func (l *Launcher) makeCgroups(sb *sandbox) error {
	if err := removeCgroups(sb.rec.Cgroups); err != nil {
		return err
	}
	for _, h := range l.groups {
		// The parent may have gone meanwhile, by a tidy administrator's hand.
		if err := h.prepare(l.opt.CgroupName); err != nil {
			return err
		}
	}
	for _, g := range sb.rec.Cgroups {
		if err := g.make(sb.rec.Limits); err != nil {
			return err
		}
		step("start: cgroup made")
	}
	return nil
}

// start runs the OCI runtime and takes hold of PID 1. The record says running
// only when that is so.
func (l *Launcher) start(ctx context.Context, sb *sandbox) error {
	if err := l.makeCgroups(sb); err != nil {
		return err
	}
	for _, d := range []string{bundleDir, runtimeDir} {
		if err := os.Mkdir(filepath.Join(sb.dir, d), 0o700); err != nil {
			return err
		}
	}
	if err := l.writeBundle(sb); err != nil {
		return err
	}
	step("start: bundle made")
	userns, err := l.userNamespace(sb.rec.UIDBase)
	if err != nil {
		return err
	}
	pid, err := l.runRuntime(ctx, sb, userns)
	if err != nil {
		return err
	}
	step("start: runtime done")
	if err := l.keepFilter(sb); err != nil {
		l.log.Warn("cannot keep the compiled seccomp filter", "error", err)
	}
	return l.hold(sb, pid)
}

// hold takes a pidfd of PID 1, records the sandbox as running and watches it.
func (l *Launcher) hold(sb *sandbox, pid int) error {
	pidfd, err := pidfdOpen(pid)
	if err != nil {
		return fmt.Errorf("the agent ended at once: %s", tail(filepath.Join(sb.dir, logFile), tailBytes))
	}
	start, err := startTime(pid)
	if err != nil {
		pidfd.Close()
		return err
	}
	sb.mu.Lock()
	sb.pidfd, sb.overfull = pidfd, false
	sb.rec.Init, sb.rec.State, sb.rec.Exit = processHandle{PID: pid, Start: start}, StateRunning, Exit{}
	err = sb.rec.write(sb.dir)
	sb.mu.Unlock()
	if err != nil {
		return err
	}
	step("start: running recorded")
	l.watch(sb)
	return nil
}

// Restart starts a stopped sandbox anew: with its own directory and so its
// journal, and with this server's program and the config given. Should it
// fail, the sandbox stays stopped.
func (l *Launcher) Restart(ctx context.Context, req Request) (Sandbox, error) {
	sb, err := l.get(req.ID)
	if err != nil {
		return Sandbox{}, err
	}
	sb.op.Lock()
	defer sb.op.Unlock()
	if s := sb.info(); s.State != StateStopped {
		return Sandbox{}, lab.Errorf(lab.CodeConflict, "sandbox %s is %s: only a stopped one can be restarted", req.ID, s.State)
	}
	if err := l.renew(sb, req); err != nil {
		return Sandbox{}, fmt.Errorf("cannot restart sandbox %s: %w", req.ID, err)
	}
	sb.mu.Lock()
	before := sb.ended
	sb.ended = make(chan struct{})
	sb.mu.Unlock()
	if err := l.start(ctx, sb); err != nil {
		err = errors.Join(err, l.clear(sb))
		sb.mu.Lock()
		sb.ended = before
		sb.mu.Unlock()
		return Sandbox{}, fmt.Errorf("cannot restart sandbox %s: %w", req.ID, err)
	}
	return sb.info(), nil
}

// renew clears away what the last start made, and records what the next makes.
func (l *Launcher) renew(sb *sandbox, req Request) error {
	if err := l.clear(sb); err != nil {
		return err
	}
	step("restart: old start cleared")
	// Nothing of the lab runs now: what it planted cannot change under us.
	run := filepath.Join(sb.dir, runDir)
	if err := os.RemoveAll(filepath.Join(run, agentapi.Socket)); err != nil {
		return err
	}
	if err := writeConfig(run, sb.rec.UIDBase, req.Config); err != nil {
		return err
	}
	step("restart: config written")
	sb.mu.Lock()
	defer sb.mu.Unlock()
	sb.rec.Boot, sb.rec.Runtime, sb.rec.Binary, sb.rec.Cgroups = l.boot, l.runtime.path, l.binary, l.labCgroups(sb.id)
	sb.rec.Limits = req.Limits.withDefaults()
	return sb.rec.write(sb.dir)
}

// Stop ends all that runs in the sandbox and returns when it is gone. The
// directory stays, for a Restart. Stopping what has stopped is done already.
func (l *Launcher) Stop(ctx context.Context, id string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	sb, err := l.get(id)
	if err != nil {
		return err
	}
	sb.op.Lock()
	defer sb.op.Unlock()
	if sb.info().State == StateRunning {
		l.noteEnd(sb, Exit{Reason: "the lab was stopped"})
		step("stop: intent recorded")
	}
	if s := sb.info(); s.State != StateStopped {
		return lab.Errorf(lab.CodeConflict, "sandbox %s is %s: only a running one can be stopped", id, s.State)
	}
	if err := l.clear(sb); err != nil {
		return fmt.Errorf("cannot stop sandbox %s: %w", id, err)
	}
	return nil
}

// clear ends what runs of a stopped sandbox and removes all but its directory,
// its record and what the lab itself wrote. op is held.
func (l *Launcher) clear(sb *sandbox) error {
	sb.mu.Lock()
	pidfd := sb.pidfd
	sb.mu.Unlock()
	if pidfd != nil {
		if err := errors.Join(kill(pidfd), await(pidfd)); err != nil {
			return err
		}
		reap(pidfd)
		sb.release()
	}
	if err := removeCgroups(sb.rec.Cgroups); err != nil {
		return err
	}
	for _, name := range []string{bundleDir, runtimeDir, pidFile} {
		if err := os.RemoveAll(filepath.Join(sb.dir, name)); err != nil {
			return err
		}
	}
	return nil
}
