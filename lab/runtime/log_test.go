package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newTestLog gives a log and the writing end of the pipe that feeds it.
func newTestLog(t *testing.T) (*Log, *logPipe, int) {
	t.Helper()
	l, err := openLog(filepath.Join(t.TempDir(), "app", "0.log"))
	if err != nil {
		t.Fatal(err)
	}
	lp, err := newLoop()
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	p, err := newLogPipe(lp, l, "stdout", ends[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lp.close)
	return l, p, ends[1]
}

func write(t *testing.T, fd int, text string) {
	t.Helper()
	for len(text) > 0 {
		n, err := unix.Write(fd, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		text = text[n:]
	}
}

// finish closes the pipe and follows the log to its end.
func finish(t *testing.T, l *Log, fd int, opts LogOptions) string {
	t.Helper()
	unix.Close(fd)
	opts.Follow = true
	var out bytes.Buffer
	done := make(chan error, 1)
	go func() { done <- l.Read(t.Context(), opts, &out) }()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// endWithPipe ends the log when its pipe does, as a container's end would.
func endWithPipe(l *Log, p *logPipe) {
	p.loop.mu.Lock()
	defer p.loop.mu.Unlock()
	p.loop.handlers[int32(p.fd)] = func() {
		p.read()
		if p.fd < 0 {
			l.end()
		}
	}
}

func TestLogFormat(t *testing.T) {
	l, p, fd := newTestLog(t)
	endWithPipe(l, p)
	long := strings.Repeat("x", logLineBytes+10)
	write(t, fd, "one\n\ntwo\n"+long+"\nend")
	if got, want := finish(t, l, fd, LogOptions{Tail: -1}), "one\n\ntwo\n"+long+"\nend"; got != want {
		t.Errorf("read %d bytes, want %d: %.60q", len(got), len(want), got)
	}
	text, err := os.ReadFile(l.path)
	if err != nil {
		t.Fatal(err)
	}
	var tags []string
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(line, " ", 4)
		if _, err := time.Parse(time.RFC3339Nano, f[0]); err != nil || len(f) != 4 || f[1] != "stdout" {
			t.Errorf("line %.60q is not CRI's", line)
		}
		tags = append(tags, f[2])
	}
	if got := strings.Join(tags, ""); got != "FFFPFP" {
		t.Errorf("tags %s, want FFFPFP", got)
	}
}

func TestLogOptions(t *testing.T) {
	l, p, fd := newTestLog(t)
	endWithPipe(l, p)
	write(t, fd, "a\nb\nc\n")
	for _, tt := range []struct {
		opts LogOptions
		want string
	}{
		{LogOptions{Tail: -1}, "a\nb\nc\n"},
		{LogOptions{Tail: 2}, "b\nc\n"},
		{LogOptions{Tail: 0}, ""},
		{LogOptions{Tail: 99}, "a\nb\nc\n"},
		{LogOptions{Tail: -1, Limit: 3}, "a\nb"},
		{LogOptions{Tail: -1, Since: time.Now().Add(time.Hour)}, ""},
		{LogOptions{Tail: -1, Since: time.Now().Add(-time.Hour)}, "a\nb\nc\n"},
		{LogOptions{Tail: -1, Stream: "stderr"}, ""},
	} {
		if fd >= 0 { // the first read also waits for all to be written
			if got := finish(t, l, fd, tt.opts); got != tt.want {
				t.Errorf("%+v: %q, want %q", tt.opts, got, tt.want)
			}
			fd = -1
			continue
		}
		var out bytes.Buffer
		if err := l.Read(t.Context(), tt.opts, &out); err != nil || out.String() != tt.want {
			t.Errorf("%+v: %q, %v; want %q", tt.opts, out.String(), err, tt.want)
		}
	}
	var out bytes.Buffer
	if err := l.Read(t.Context(), LogOptions{Tail: 1, Timestamps: true}, &out); err != nil {
		t.Fatal(err)
	}
	stamp, text, _ := strings.Cut(out.String(), " ")
	if _, err := time.Parse(time.RFC3339Nano, stamp); err != nil || text != "c\n" {
		t.Errorf("with timestamps: %q", out.String())
	}
}

// A follower sees every line while the log is rotated several times, and the
// files stay within their bounds.
func TestLogRotatesUnderAFollower(t *testing.T) {
	l, p, fd := newTestLog(t)
	endWithPipe(l, p)
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := l.Read(t.Context(), LogOptions{Tail: -1, Follow: true}, w)
		_ = w.Close()
		done <- err
	}()
	const line = 1000
	const lines = 3 * logFileBytes / line
	go func() {
		for i := range lines {
			write(t, fd, fmt.Sprintf("%08d %s\n", i, strings.Repeat("x", line-10)))
		}
		unix.Close(fd)
	}()
	seen := 0
	last := -1
	buf := make([]byte, line)
	for {
		if _, err := io.ReadFull(r, buf); err != nil {
			if !errors.Is(err, io.EOF) {
				t.Error(err)
			}
			break
		}
		var n int
		if _, err := fmt.Sscanf(string(buf[:8]), "%d", &n); err != nil || n <= last {
			t.Fatalf("line %q after %d", buf[:12], last)
		}
		last = n
		seen++
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	// A follower that falls two files behind loses what is gone; never order.
	if last != lines-1 || seen < logFileBytes/line {
		t.Errorf("saw %d of %d lines, the last %d", seen, lines, last)
	}
	for _, path := range []string{l.path, l.path + ".1"} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > logFileBytes {
			t.Errorf("%s has %d bytes, at most %d", path, info.Size(), logFileBytes)
		}
	}
	if _, err := os.Stat(l.path + ".2"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a third file: %v", err)
	}
}

func TestLogFollowEndsWithItsReader(t *testing.T) {
	l, p, fd := newTestLog(t)
	endWithPipe(l, p)
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- l.Read(ctx, LogOptions{Tail: -1, Follow: true}, w) }()
	write(t, fd, "hello\n")
	buf := make([]byte, 6)
	if _, err := io.ReadFull(r, buf); err != nil || string(buf) != "hello\n" {
		t.Fatalf("%q, %v", buf, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	finish(t, l, fd, LogOptions{Tail: -1})
}
