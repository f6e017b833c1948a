package agent

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"podlab/lab/agentapi"
)

// Main runs the agent of a sandbox as its PID 1 and returns its exit code. The
// version is podlab's, for the handshake.
func Main(version string) int {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	slog.SetDefault(log)
	// The kernel delivers to PID 1 only the signals that it handles.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	a, err := newAgent(options{
		runDir: agentapi.RunDir, scratch: agentapi.ScratchDir, images: agentapi.ImagesDir,
		root: agentapi.RootDir, version: version, log: log,
	})
	if err == nil {
		err = a.run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "podlab agent:", err)
		return 1
	}
	return 0
}
