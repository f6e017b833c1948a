package kube

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"k8s.io/klog/v2"
)

var klogOnce sync.Once

// logKlog sends what Kubernetes' packages log, which is one logger for the
// whole process, to the first server's log: warnings and errors only.
func logKlog(log *slog.Logger) {
	klogOnce.Do(func() { klog.SetSlogLogger(slog.New(klogFilter{log.Handler()})) })
}

type klogFilter struct{ slog.Handler }

// Enabled is true for warnings and errors.
func (f klogFilter) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && f.Handler.Enabled(ctx, l)
}

// expected are errors of every day: fields that are not tracked while the
// schemas are not loaded (see lazySchemas), and clients that end a stream.
var expected = []string{
	errNoSchema.Error(),
	"use of closed network connection",
	"read/write on closed pipe",
	"websocket: close 1006",
	"error executing command in container: ",
	"error attaching to container: ",
	"Error proxying data from ",
}

// Handle leaves out what is expected.
func (f klogFilter) Handle(ctx context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "err" {
			text += " " + a.Value.String()
		}
		return true
	})
	if slices.ContainsFunc(expected, func(e string) bool { return strings.Contains(text, e) }) {
		return nil
	}
	return f.Handler.Handle(ctx, r)
}

// WithAttrs keeps the filter.
func (f klogFilter) WithAttrs(a []slog.Attr) slog.Handler { return klogFilter{f.Handler.WithAttrs(a)} }

// WithGroup keeps the filter.
func (f klogFilter) WithGroup(n string) slog.Handler { return klogFilter{f.Handler.WithGroup(n)} }
