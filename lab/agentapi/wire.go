// Package agentapi is what the server and an agent say to each other: HTTP and
// WebSockets over the Unix socket in the lab's directory. The server trusts
// nothing that comes from an agent: sizes are bounded, and no answer names a
// file or command for the server to act on.
//
//	GET  /v1/handshake            -> Handshake
//	GET  /v1/state                -> lab.State
//	GET  /v1/events?after=SEQ     WebSocket, text frames, each one StreamMessage: a
//	                              snapshot first (unless after names an event that is
//	                              still in the log), then events in order
//	GET  /v1/log?before=SEQ&limit=N
//	                              []lab.Event: the last N (at most 5000) events before
//	                              SEQ that are still in the log, in order; before=0
//	                              means all. A page shows the past with it.
//	POST /v1/apply                YAML or JSON documents -> ApplyResult; all or nothing
//	POST /v1/facts                FactsRequest -> lab.Facts
//	GET  /v1/terminals            -> []Terminal
//	POST /v1/terminals            TerminalRequest -> Terminal
//	DELETE /v1/terminals/{id}
//	GET  /v1/terminals/{id}/attach?after=OFFSET
//	                              WebSocket: binary frames are bytes to and from the
//	                              terminal; text frames are TerminalControl. The first
//	                              frame from the agent is a TerminalControl with Offset.
//	POST /v1/exec                 WebSocket upgrade (GET with query target, command…,
//	                              stdin, tty): frames of the Kubernetes
//	                              v5.channel.k8s.io sub-protocol
//	ANY  /kube/…                  the lab's Kubernetes API
//
// Errors are lab.Error as JSON with a status that fits its code.
package agentapi

import (
	"time"

	"podlab/lab"
)

// Protocol is the version of this protocol. A server speaks to agents of its
// own version and the one before; it says so in place of failing oddly.
const Protocol = 1

// Paths inside the sandbox; the directory is the lab's own on the host.
const (
	// RunDir is the lab's directory, bound read-write into the sandbox.
	RunDir = "/run/podlab"
	// Socket of the agent, in RunDir.
	Socket = "agent.sock"
	// ConfigFile holds the Config, in RunDir, written before the agent starts.
	ConfigFile = "config.json"
	// JournalFile is the Kubernetes API's journal, in RunDir.
	JournalFile = "journal"
	// ScratchDir is a tmpfs of the sandbox, bounded in bytes and inodes, for
	// overlay uppers, volumes and logs.
	ScratchDir = "/scratch"
	// ImagesDir holds the image catalogue and image layers, read-only.
	ImagesDir = "/images"
	// RootDir is the lab's root file system, read-only, the lower layer of
	// nodes and containers. It is the sandbox's own root.
	RootDir = "/"
)

// Config is what the server gives an agent at its start.
type Config struct {
	ID string `json:"id"`
	// Lab is the wanted shape.
	Lab lab.Lab `json:"lab"`
	// Manifests are Kubernetes documents (YAML) applied once the API is up,
	// unless the journal already has objects.
	Manifests string `json:"manifests"`
}

// Handshake is the agent's answer to the server's first question.
type Handshake struct {
	Protocol  int       `json:"protocol"`
	Version   string    `json:"version"`
	ID        string    `json:"id"`
	StartedAt time.Time `json:"startedAt"`
	Phase     lab.Phase `json:"phase"`
	Reason    string    `json:"reason,omitempty"`
}

// StreamMessage is one frame of the event stream; one field is set.
type StreamMessage struct {
	Snapshot *lab.State `json:"snapshot,omitempty"`
	Event    *lab.Event `json:"event,omitempty"`
}

// ApplyResult says what each document became.
type ApplyResult struct {
	Objects []AppliedObject `json:"objects"`
	// Errors are set when nothing was applied; each has line and field.
	Errors []*lab.Error `json:"errors,omitempty"`
}

// AppliedObject is one document of an apply.
type AppliedObject struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	// Action is "created", "configured" or "unchanged".
	Action string `json:"action"`
}

// FactsRequest asks for facts and for probes, by id.
type FactsRequest struct {
	Probes map[string]lab.Probe `json:"probes"`
}

// TerminalRequest asks for a shell.
type TerminalRequest struct {
	Target lab.Target `json:"target"`
	Cols   uint16     `json:"cols"`
	Rows   uint16     `json:"rows"`
}

// Terminal is a shell that runs, or ran, in the lab.
type Terminal struct {
	ID        string     `json:"id"`
	Target    lab.Target `json:"target"`
	StartedAt time.Time  `json:"startedAt"`
	Ended     bool       `json:"ended"`
	ExitCode  int        `json:"exitCode"`
}

// TerminalControl is a text frame of a terminal's WebSocket.
type TerminalControl struct {
	// Resize from the browser.
	Cols uint16 `json:"cols,omitempty"`
	Rows uint16 `json:"rows,omitempty"`
	// Offset from the agent: the number of the first byte that follows, counted
	// from the shell's start. Greater than the `after` asked for means that the
	// bounded scrollback has lost the bytes between.
	Offset *int64 `json:"offset,omitempty"`
	// End from the agent, beside Offset: the number of the byte after the last
	// one written so far. The bytes before End are the past: a terminal that
	// shows them again must not answer the questions in them (such as "where is
	// the cursor"), since the answer would be typed into the shell.
	End *int64 `json:"end,omitempty"`
	// Exit from the agent: the shell has ended.
	Exit *int `json:"exit,omitempty"`
}
