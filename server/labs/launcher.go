package labs

import (
	"context"
	"net"

	"podlab/lab/agentapi"
	"podlab/server/agentclient"
	"podlab/web/view"
)

// Spec is what a Launcher needs to start a sandbox.
type Spec struct {
	// ID of the lab: ten characters of [a-z2-7], fit for a cgroup and a directory.
	ID string
	// Config is written for the agent before it starts.
	Config agentapi.Config
}

// Launcher starts sandboxes and finds them again. The real one is in
// server/launch; a second one could start them as Pods.
type Launcher interface {
	// Start makes the sandbox and starts the agent in it. It returns as soon as
	// the agent's process runs; its socket appears a moment later. A directory
	// of the lab that a stopped sandbox left is used again, journal and all.
	// On error, or when ctx ends first, nothing is left but that directory.
	Start(ctx context.Context, spec Spec) (Sandbox, error)
	// Recover finds the sandboxes that a former server started. Those in keep
	// are returned, also where the agent has ended meanwhile (then Done is
	// closed); all others, whole or half made, are removed without a trace.
	Recover(ctx context.Context, keep map[string]bool) ([]Sandbox, error)
	// Discard removes the directory that a stopped sandbox left. One that is
	// not there is no error.
	Discard(ctx context.Context, id string) error
}

// Sandbox is a lab's container. All methods are safe for concurrent use.
type Sandbox interface {
	ID() string
	// Dial connects to the agent's socket. While the socket is not there yet,
	// the error is CodeUnavailable.
	Dial(ctx context.Context) (net.Conn, error)
	// Confirm is called once the agent has answered its handshake: the agent's
	// process moves into its own cgroup.
	Confirm(ctx context.Context) error
	// Done is closed when the agent has ended, for whatever reason.
	Done() <-chan struct{}
	// Reason says in words for people why the agent ended, once Done is closed.
	Reason() string
	// Stop kills all that runs in the sandbox and keeps the lab's directory, for
	// a later Start. Remove takes the directory too. Both return when nothing
	// of the lab can run any more; Gone tells when the rest is cleared away.
	Stop(ctx context.Context) error
	Remove(ctx context.Context) error
	// Gone is closed when, after Stop or Remove, no process, mount, cgroup or
	// (after Remove) directory of the sandbox is left.
	Gone() <-chan struct{}
}

// Grader watches the checks of an exercise in a lab. The real one is in
// server/grade.
type Grader interface {
	// Watch evaluates the checks whenever an event may have changed them and
	// reports the results that changed, all of them at first. It returns when
	// ctx ends or the agent is gone. It must not keep the slice it reports.
	Watch(ctx context.Context, exercise string, agent *agentclient.Client, report func([]view.CheckResult))
}
