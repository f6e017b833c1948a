// Package launch starts, finds and removes sandboxes: one OCI container per
// lab, in a user namespace of its own, whose PID 1 is `podlab agent`.
//
// The server owns one Launcher. All methods may be called at once from many
// goroutines; calls for one id are put in order. A sandbox does not depend on
// the server: after the server died in whatever place, the next one's Recover
// finds what is whole and removes what is half. For that, each step is on disk
// in DATA/labs/ID/launch.json before it is done.
//
// What a lab can write (its run directory, its log, its socket) is never
// trusted: no symbolic link there is followed and no name there is believed.
package launch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"podlab/lab"
	"podlab/lab/agentapi"
)

// Options of a Launcher. Data is needed; what else is empty gets a default.
type Options struct {
	// Data is the server's data directory.
	Data string
	// Runtime is an OCI runtime's name or path; empty means crun, else runc.
	Runtime string
	// RootFS is the lab's root file system; default DATA/rootfs/current.
	RootFS string
	// Program is what runs as `podlab agent`; default: this very program.
	Program string
	// Command is the program's argument; default AgentCommand.
	Command string
	// CgroupName is the directory of all labs in each hierarchy. The default
	// tells the data directory, so that several servers never meet.
	CgroupName string
	Log        *slog.Logger
}

// Limits of one sandbox. Zero means the default.
type Limits struct {
	MemoryBytes int64 `json:"memoryBytes"`
	// AgentMemoryBytes bounds PID 1 apart from what the learner runs.
	AgentMemoryBytes int64 `json:"agentMemoryBytes"`
	PIDs             int64 `json:"pids"`
	// CPUs is a quota in cores; 0 sets none.
	CPUs          float64 `json:"cpus"`
	ScratchBytes  int64   `json:"scratchBytes"`
	ScratchInodes int64   `json:"scratchInodes"`
}

// DefaultLimits suit the course's labs.
func DefaultLimits() Limits {
	return Limits{
		MemoryBytes: 512 << 20, AgentMemoryBytes: 256 << 20,
		PIDs: 1024, CPUs: 1.5,
		ScratchBytes: 256 << 20, ScratchInodes: 65536,
	}
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	for _, f := range []struct {
		have *int64
		want int64
	}{
		{&l.MemoryBytes, d.MemoryBytes}, {&l.AgentMemoryBytes, d.AgentMemoryBytes}, {&l.PIDs, d.PIDs},
		{&l.ScratchBytes, d.ScratchBytes}, {&l.ScratchInodes, d.ScratchInodes},
	} {
		if *f.have == 0 {
			*f.have = f.want
		}
	}
	return l
}

// Request says what to start.
type Request struct {
	// ID names the lab: a DNS label.
	ID     string
	Config agentapi.Config
	Limits Limits
}

// Sandbox is what a caller may know of one.
type Sandbox struct {
	ID      string
	State   State
	PID     int
	UIDBase uint32
	Created time.Time
	// Ended is set when the state is stopped.
	Ended *Exit
}

// Launcher keeps the sandboxes of one data directory.
type Launcher struct {
	opt      Options
	log      *slog.Logger
	runtime  runtimeProgram
	binary   string
	filter   string // the compiled seccomp filter's file
	boot     string
	groups   []hierarchy
	mode     cgroupMode
	firstUID uint32

	// background counts goroutines that remove and watch.
	background sync.WaitGroup
	closing    chan struct{}

	mu    sync.Mutex // guards what follows
	boxes map[string]*sandbox
	slots map[uint32]string
	users map[uint32]*os.File
}

// sandbox is one lab's container.
type sandbox struct {
	id   string
	dir  string
	gone chan struct{} // closed when no trace is left

	op sync.Mutex // puts create, restart and delete of one id in order

	mu    sync.Mutex // guards what follows
	rec   record
	pidfd *os.File
	ended chan struct{} // closed when PID 1 has ended; a restart makes a new one
	exit  Exit
	// stuck: its removal failed and is to be tried again.
	stuck bool
	// overfull: PID 1 was killed as its directory outgrew its bounds.
	overfull bool
}

var validID = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// New readies a data directory for labs. It starts nothing and removes
// nothing: call Recover next.
func New(opt Options) (*Launcher, error) {
	if opt.RootFS == "" {
		opt.RootFS = filepath.Join(opt.Data, "rootfs", "current")
	}
	if opt.Command == "" {
		opt.Command = AgentCommand
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	var err error
	if opt.Data, err = filepath.Abs(opt.Data); err != nil {
		return nil, err
	}
	if opt.CgroupName == "" {
		opt.CgroupName = CgroupName(opt.Data)
	}
	l := &Launcher{
		opt: opt, log: opt.Log, firstUID: FirstUID, closing: make(chan struct{}),
		boxes: map[string]*sandbox{}, slots: map[uint32]string{}, users: map[uint32]*os.File{},
	}
	if l.boot, err = bootID(); err != nil {
		return nil, err
	}
	if l.runtime, err = findRuntime(opt.Runtime); err != nil {
		return nil, err
	}
	if l.filter, err = l.filterCache(); err != nil {
		return nil, err
	}
	if l.opt.RootFS, err = prepareRootFS(opt.RootFS); err != nil {
		return nil, err
	}
	if err := l.prepareData(); err != nil {
		return nil, err
	}
	if err := l.prepareCgroups(); err != nil {
		return nil, err
	}
	// PID 1 of a sandbox becomes our child when its runtime ends, so that its
	// number stays taken until we have seen how it ended.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("cannot become a child subreaper: %w", err)
	}
	l.background.Go(l.keepBounds)
	return l, nil
}

// CgroupName is the default name of the cgroup of all labs of a data directory,
// given as an absolute path.
func CgroupName(data string) string {
	sum := sha256.Sum256([]byte(data))
	return "podlab-" + hex.EncodeToString(sum[:4])
}

func (l *Launcher) prepareData() error {
	// Labs see none of these directories, so nobody but root needs to.
	for _, d := range []string{l.opt.Data, l.labs(), l.bin(), l.images()} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return fmt.Errorf("cannot make the data directory: %w", err)
		}
	}
	if err := os.Chmod(l.images(), 0o755); err != nil {
		return fmt.Errorf("cannot set the mode of the image directory: %w", err)
	}
	var err error
	l.binary, err = keepBinary(l.bin(), l.opt.Program)
	return err
}

func (l *Launcher) prepareCgroups() error {
	hs, mode, err := findHierarchies()
	if err != nil {
		return err
	}
	l.mode = mode
	for _, h := range hs {
		// Hybrid hosts' v2 tree holds no controller, yet kills a whole lab at once.
		if len(h.limits()) == 0 && !h.V2 && !l.runtime.managesCgroups() {
			continue
		}
		if err := h.prepare(l.opt.CgroupName); err != nil {
			return err
		}
		l.groups = append(l.groups, h)
	}
	return nil
}

func (l *Launcher) labs() string         { return filepath.Join(l.opt.Data, "labs") }
func (l *Launcher) bin() string          { return filepath.Join(l.opt.Data, "bin") }
func (l *Launcher) images() string       { return filepath.Join(l.opt.Data, "images") }
func (l *Launcher) dir(id string) string { return filepath.Join(l.labs(), id) }

// Create starts a sandbox and returns once its PID 1 runs the agent's program;
// whether the agent is ready is asked over Dial. On an error nothing is left.
func (l *Launcher) Create(ctx context.Context, req Request) (Sandbox, error) {
	if !validID.MatchString(req.ID) {
		return Sandbox{}, lab.Errorf(lab.CodeInvalid, "lab id %q: want a DNS label of at most 63 of a-z, 0-9 and '-'", req.ID)
	}
	sb, err := l.claim(req)
	if err != nil {
		return Sandbox{}, err
	}
	sb.op.Lock()
	defer sb.op.Unlock()
	if err := l.create(ctx, sb, req); err != nil {
		l.discard(sb)
		return Sandbox{}, fmt.Errorf("cannot create sandbox %s: %w", req.ID, err)
	}
	return sb.info(), nil
}

// claim takes the id and a uid range for a new sandbox.
func (l *Launcher) claim(req Request) (*sandbox, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.boxes[req.ID]; ok {
		return nil, lab.Errorf(lab.CodeConflict, "sandbox %s exists already", req.ID)
	}
	slot, err := l.freeSlotLocked()
	if err != nil {
		return nil, err
	}
	sb := l.newSandbox(record{
		ID: req.ID, State: StateCreating, Boot: l.boot, Created: time.Now().UTC(),
		Slot: slot, UIDBase: l.firstUID + slot*idsPerLab, Runtime: l.runtime.path, Binary: l.binary,
		Cgroups: l.labCgroups(req.ID), Limits: req.Limits.withDefaults(),
	})
	l.boxes[req.ID], l.slots[slot] = sb, req.ID
	return sb, nil
}

func (l *Launcher) newSandbox(rec record) *sandbox {
	return &sandbox{id: rec.ID, dir: l.dir(rec.ID), rec: rec, gone: make(chan struct{}), ended: make(chan struct{})}
}

func (l *Launcher) labCgroups(id string) []labCgroup {
	var gs []labCgroup
	for _, h := range l.groups {
		gs = append(gs, labCgroup{Dir: filepath.Join(h.Parent, l.opt.CgroupName, id), V2: h.V2, Controllers: h.limits()})
	}
	return gs
}

// Delete kills the sandbox and returns; what is left of it goes in the
// background. Deleting what does not exist is done already.
func (l *Launcher) Delete(ctx context.Context, id string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	sb, err := l.get(id)
	if err != nil {
		return nil
	}
	sb.op.Lock()
	defer sb.op.Unlock()
	sb.mu.Lock()
	again := sb.rec.State == StateDeleting
	sb.rec.State = StateDeleting
	rec, pidfd := sb.rec, sb.pidfd
	sb.mu.Unlock()
	if again {
		return nil
	}
	if err := rec.write(sb.dir); err != nil {
		// A full disk must not keep anyone from making room. Should the server die
		// now, the next one shows the sandbox as stopped.
		l.log.Warn("cannot record that a sandbox is being deleted", "lab", id, "error", err)
	}
	step("delete: intent recorded")
	if pidfd != nil {
		if err := kill(pidfd); err != nil {
			return err
		}
	}
	step("delete: killed")
	l.background.Go(func() { l.discard(sb) })
	return nil
}

// Gone is closed when no trace of the sandbox is left on the host.
func (l *Launcher) Gone(id string) <-chan struct{} {
	sb, err := l.get(id)
	if err != nil {
		c := make(chan struct{})
		close(c)
		return c
	}
	return sb.gone
}

// List returns all sandboxes, in order of their ids.
func (l *Launcher) List() []Sandbox {
	boxes := l.all()
	list := make([]Sandbox, 0, len(boxes))
	for _, sb := range boxes {
		list = append(list, sb.info())
	}
	slices.SortFunc(list, func(a, b Sandbox) int { return strings.Compare(a.ID, b.ID) })
	return list
}

func (l *Launcher) all() []*sandbox {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Values(l.boxes))
}

func (l *Launcher) get(id string) (*sandbox, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	sb, ok := l.boxes[id]
	if !ok {
		return nil, lab.Errorf(lab.CodeNotFound, "there is no sandbox %q", id)
	}
	return sb, nil
}

func (sb *sandbox) info() Sandbox {
	sb.mu.Lock()
	defer sb.mu.Unlock()
	s := Sandbox{ID: sb.id, State: sb.rec.State, PID: sb.rec.Init.PID, UIDBase: sb.rec.UIDBase, Created: sb.rec.Created}
	select {
	case <-sb.ended:
		e := sb.exit
		s.Ended = &e
	default:
	}
	return s
}

// Close waits for what is being removed. Sandboxes live on.
func (l *Launcher) Close() error {
	l.mu.Lock()
	select {
	case <-l.closing:
	default:
		close(l.closing)
	}
	l.mu.Unlock()
	for _, sb := range l.all() {
		sb.release()
	}
	l.background.Wait()
	for _, h := range l.groups {
		// Goes when no lab is left; else the kernel refuses, as it should.
		_ = unix.Rmdir(filepath.Join(h.Parent, l.opt.CgroupName))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.users {
		f.Close()
	}
	clear(l.users)
	return nil
}

// step is a place where a test may stop the server for good.
func step(name string) {
	if testStep != nil {
		testStep(name)
	}
}

// testStep is set by tests only.
var testStep func(name string)
