package runtime

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of a container's log: the current file and the one before it.
const (
	logFileBytes = 1 << 20
	// logLineBytes is where a line without end is cut, as containerd does.
	logLineBytes = 16 << 10
)

// Log keeps what a container wrote, in the CRI format: a line is a time in
// RFC 3339 with nanoseconds, the stream, F for a full line or P for a part of
// one, and the text. It is bounded: the file at the path, and the one before
// it at path.1.
type Log struct {
	path string

	mu      sync.Mutex
	f       *os.File
	size    int64
	turn    int           // grows with each rotation
	ended   bool          // no more will be written
	changed chan struct{} // closed by the next change; nil if nobody waits
}

func openLog(path string) (*Log, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("cannot make the log's folder: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return nil, fmt.Errorf("cannot open the log: %w", err)
	}
	return &Log{path: path, f: f}, nil
}

// append writes whole CRI lines. A full disk loses them: the container must
// not be stopped by its log.
func (l *Log) append(lines []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended || len(lines) == 0 {
		return
	}
	if l.size+int64(len(lines)) > logFileBytes && l.size > 0 {
		l.rotateLocked()
	}
	n, err := l.f.Write(lines)
	if err != nil && n > 0 { // keep no half line
		if l.f.Truncate(l.size) == nil {
			_, _ = l.f.Seek(l.size, io.SeekStart)
		}
		n = 0
	}
	l.size += int64(n)
	l.notifyLocked()
}

func (l *Log) rotateLocked() {
	if err := os.Rename(l.path, l.path+".1"); err != nil {
		return
	}
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return // go on in the renamed file
	}
	l.f.Close()
	l.f, l.size = f, 0
	l.turn++
}

func (l *Log) notifyLocked() {
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// end says that no more will be written.
func (l *Log) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.ended = true
		l.f.Close()
		l.notifyLocked()
	}
}

// state returns the rotation, whether the log has ended, and a channel that the
// next change closes.
func (l *Log) state() (int, bool, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	return l.turn, l.ended, l.changed
}

// Remove deletes the log's files.
func (l *Log) Remove() error {
	l.end()
	return errors.Join(ignoreMissing(os.Remove(l.path)), ignoreMissing(os.Remove(l.path+".1")))
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// LogOptions choose what Read writes.
type LogOptions struct {
	// Tail is the number of lines from the end; negative for all.
	Tail int64
	// Since leaves out older lines.
	Since time.Time
	// Follow goes on until the container has ended or ctx is done.
	Follow bool
	// Timestamps puts each line's time before it.
	Timestamps bool
	// Limit is the most bytes to write; 0 for no limit.
	Limit int64
	// Stream is "stdout" or "stderr", or empty for both.
	Stream string
}

var errLimit = errors.New("limit reached")

// Read writes the log's lines, without the CRI fields, to w. It waits for new
// lines without polling.
func (l *Log) Read(ctx context.Context, opts LogOptions, w io.Writer) error {
	out := lineWriter{w: w, opts: opts}
	if opts.Tail >= 0 {
		total, err := l.countLines(opts)
		if err != nil {
			return err
		}
		out.skip = max(0, total-opts.Tail)
	}
	f, turn, err := l.open(-1, &out)
	if err != nil {
		return out.result(err)
	}
	defer func() { f.Close() }()
	r := bufio.NewReaderSize(f, 8<<10)
	for {
		now, ended, changed := l.state()
		if err := out.copy(r); err != nil {
			return out.result(err)
		}
		switch {
		case now != turn: // the open file is complete; another has begun
			next, turned, err := l.open(turn, &out)
			if err != nil {
				return out.result(err)
			}
			f.Close()
			f, turn = next, turned
			r.Reset(f)
		case ended || !opts.Follow:
			return nil
		default:
			select {
			case <-changed:
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// open returns the newest file and its turn for a reader that has read the file
// of turn seen, or none (-1). If there is a file between the two, it is copied
// first. No rotation comes between the opening of both.
func (l *Log) open(seen int, out *lineWriter) (*os.File, int, error) {
	older, newest, turn, err := l.openFiles(seen)
	if err != nil {
		return nil, 0, err
	}
	if older != nil {
		defer older.Close()
		if err := out.copy(bufio.NewReaderSize(older, 8<<10)); err != nil {
			newest.Close()
			return nil, 0, err
		}
	}
	return newest, turn, nil
}

func (l *Log) openFiles(seen int) (older, newest *os.File, turn int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if newest, err = os.Open(l.path); err != nil {
		return nil, nil, 0, fmt.Errorf("cannot open the log: %w", err)
	}
	if seen < l.turn-1 {
		older, err = os.Open(l.path + ".1")
		if ignoreMissing(err) != nil {
			newest.Close()
			return nil, nil, 0, fmt.Errorf("cannot open the log: %w", err)
		}
	}
	return older, newest, l.turn, nil
}

func (l *Log) countLines(opts LogOptions) (int64, error) {
	count := lineWriter{w: io.Discard, opts: LogOptions{Since: opts.Since, Stream: opts.Stream}}
	for _, path := range []string{l.path + ".1", l.path} {
		if err := copyFile(path, &count); err != nil {
			return 0, err
		}
	}
	return count.lines, nil
}

func copyFile(path string, out *lineWriter) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot open the log: %w", err)
	}
	defer f.Close()
	return out.copy(bufio.NewReaderSize(f, 8<<10))
}

// lineWriter takes CRI lines apart and writes those that are wanted.
type lineWriter struct {
	w     io.Writer
	opts  LogOptions
	skip  int64  // lines to leave out
	lines int64  // full lines seen
	sent  int64  // bytes written
	half  []byte // a line that has not been read to its end
	inP   bool   // the last piece was a part of a line
}

// copy writes all lines that r has; an unfinished one is kept for the next call.
func (o *lineWriter) copy(r *bufio.Reader) error {
	for {
		piece, err := r.ReadSlice('\n')
		o.half = append(o.half, piece...)
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot read the log: %w", err)
		}
		err = o.line(o.half)
		o.half = o.half[:0]
		if err != nil {
			return err
		}
	}
}

// line handles one CRI line: TIME STREAM TAG TEXT.
func (o *lineWriter) line(b []byte) error {
	stamp, rest, _ := bytes.Cut(b, []byte(" "))
	stream, rest, _ := bytes.Cut(rest, []byte(" "))
	tag, text, ok := bytes.Cut(rest, []byte(" "))
	if !ok || (o.opts.Stream != "" && o.opts.Stream != string(stream)) {
		return nil
	}
	if !o.opts.Since.IsZero() {
		if at, err := time.Parse(time.RFC3339Nano, string(stamp)); err != nil || at.Before(o.opts.Since) {
			return nil
		}
	}
	first, partial := !o.inP, string(tag) == "P"
	o.inP = partial
	if partial {
		text = bytes.TrimSuffix(text, []byte("\n"))
	} else {
		o.lines++
	}
	if o.skip > 0 {
		if !partial {
			o.skip--
		}
		return nil
	}
	if o.opts.Timestamps && first {
		if err := o.write(append(append([]byte(nil), stamp...), ' ')); err != nil {
			return err
		}
	}
	return o.write(text)
}

func (o *lineWriter) write(b []byte) error {
	if o.opts.Limit > 0 && o.sent+int64(len(b)) > o.opts.Limit {
		b = b[:o.opts.Limit-o.sent]
	}
	n, err := o.w.Write(b)
	o.sent += int64(n)
	if err != nil {
		return fmt.Errorf("cannot write log lines: %w", err)
	}
	if o.opts.Limit > 0 && o.sent >= o.opts.Limit {
		return errLimit
	}
	return nil
}

func (o *lineWriter) result(err error) error {
	if errors.Is(err, errLimit) {
		return nil
	}
	return err
}

// logPipe carries one stream of a container into its log. All its methods run
// on the loop.
type logPipe struct {
	loop   *loop
	log    *Log
	stream string
	fd     int // -1 when closed
	half   []byte

	mu   sync.Mutex
	taps map[int]func([]byte)
	next int
}

// logScratch is shared by all pipes: they run on one goroutine.
type logScratch struct {
	in  [16 << 10]byte
	out []byte
}

// newLogPipe reads f, which it owns from now on, until its end.
func newLogPipe(l *loop, log *Log, stream string, fd int) (*logPipe, error) {
	p := &logPipe{loop: l, log: log, stream: stream, fd: fd}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("cannot set up the log: %w", err)
	}
	if err := l.add(fd, p.read); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return p, nil
}

// read takes what is there at once; epoll calls again while there is more.
func (p *logPipe) read() {
	n, err := unix.Read(p.fd, p.loop.scratch.in[:])
	switch {
	case n > 0:
		p.take(p.loop.scratch.in[:n])
	case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
	default: // end of file; EIO of a pseudo-terminal whose last user has gone
		p.close()
	}
}

// drain reads all that is left, and closes: the container has ended.
func (p *logPipe) drain() {
	for p.fd >= 0 {
		n, err := unix.Read(p.fd, p.loop.scratch.in[:])
		if n > 0 {
			p.take(p.loop.scratch.in[:n])
			continue
		}
		if errors.Is(err, unix.EINTR) {
			continue
		}
		p.close()
	}
}

func (p *logPipe) close() {
	if p.fd < 0 {
		return
	}
	if len(p.half) > 0 {
		p.log.append(appendCRI(nil, time.Now(), p.stream, 'P', p.half))
		p.half = nil
	}
	p.loop.remove(p.fd)
	p.fd = -1
}

// take cuts output into lines.
func (p *logPipe) take(b []byte) {
	p.tapped(b)
	now := time.Now()
	out := p.loop.scratch.out[:0]
	for len(b) > 0 {
		nl := bytes.IndexByte(b, '\n')
		end := nl
		if nl < 0 {
			end = len(b)
		}
		if len(p.half)+end > logLineBytes {
			cut := logLineBytes - len(p.half)
			p.half = append(p.half, b[:cut]...)
			out = appendCRI(out, now, p.stream, 'P', p.half)
			p.half, b = p.half[:0], b[cut:]
			continue
		}
		if nl < 0 {
			p.half = append(p.half, b...)
			break
		}
		if len(p.half) > 0 {
			p.half = append(p.half, b[:nl]...)
			out = appendCRI(out, now, p.stream, 'F', p.half)
			p.half = nil
		} else {
			out = appendCRI(out, now, p.stream, 'F', b[:nl])
		}
		b = b[nl+1:]
	}
	p.log.append(out)
	if cap(out) <= 64<<10 {
		p.loop.scratch.out = out
	}
}

func appendCRI(b []byte, at time.Time, stream string, tag byte, text []byte) []byte {
	b = at.UTC().AppendFormat(b, "2006-01-02T15:04:05.000000000Z07:00")
	b = append(b, ' ')
	b = append(b, stream...)
	b = append(b, ' ', tag, ' ')
	b = append(b, text...)
	return append(b, '\n')
}

// tap calls f with each piece of output from now on, on the loop, until the
// returned function is called.
func (p *logPipe) tap(f func([]byte)) (untap func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taps == nil {
		p.taps = map[int]func([]byte){}
	}
	id := p.next
	p.next++
	p.taps[id] = f
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.taps, id)
	}
}

func (p *logPipe) tapped(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.taps {
		f(b)
	}
}
