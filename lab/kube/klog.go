package kube

import (
	"context"
	"log/slog"
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

// Handle leaves out that fields are not tracked while the schemas are not
// loaded: see lazySchemas.
func (f klogFilter) Handle(ctx context.Context, r slog.Record) error {
	if strings.Contains(r.Message, "failed to update managedFields") {
		expected := false
		r.Attrs(func(a slog.Attr) bool {
			expected = a.Key == "err" && strings.Contains(a.Value.String(), errNoSchema.Error())
			return !expected
		})
		if expected {
			return nil
		}
	}
	return f.Handler.Handle(ctx, r)
}

// WithAttrs keeps the filter.
func (f klogFilter) WithAttrs(a []slog.Attr) slog.Handler { return klogFilter{f.Handler.WithAttrs(a)} }

// WithGroup keeps the filter.
func (f klogFilter) WithGroup(n string) slog.Handler { return klogFilter{f.Handler.WithGroup(n)} }
