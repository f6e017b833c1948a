package view

import (
	"time"

	"podlab/lab"
)

// MessageType says which field of a StreamMessage is set.
type MessageType string

// The types of messages of a lab's socket.
const (
	MessageHello    MessageType = "hello"    // Hello: always the first frame
	MessageSnapshot MessageType = "snapshot" // Snapshot: replaces all that was known
	MessageEvent    MessageType = "event"    // Event: follows the state's Seq by one
	MessageChecks   MessageType = "checks"   // Checks: results that changed, or all after hello
	MessageLab      MessageType = "lab"      // Lab: the lab's phase as the server sees it
	MessageError    MessageType = "error"    // Error: the stream ends; the code says whether to come back
)

// StreamMessage is one text frame of GET /api/v1/labs/{id}/events?after=SEQ,
// from the server to the browser. The order is: hello; then a snapshot,
// unless `after` names an event that the agent still has; then events. Checks
// and lab messages come in between at any time. The browser sends nothing.
// While a lab has no agent (creating, failed), only hello, lab and checks come.
type StreamMessage struct {
	Type     MessageType   `json:"type"`
	Hello    *Hello        `json:"hello,omitempty"`
	Snapshot *lab.State    `json:"snapshot,omitempty"`
	Event    *lab.Event    `json:"event,omitempty"`
	Checks   []CheckResult `json:"checks,omitempty"`
	Lab      *LabStatus    `json:"lab,omitempty"`
	Error    *lab.Error    `json:"error,omitempty"`
}

// Hello tells the page what it talks to.
type Hello struct {
	// Version of the server; a page of another version offers to reload.
	Version string    `json:"version"`
	Now     time.Time `json:"now"`
	Lab     LabStatus `json:"lab"`
}

// LabStatus is the lab as the server sees it.
type LabStatus struct {
	Phase lab.Phase `json:"phase"`
	// Reason in words for people, when failed.
	Reason string `json:"reason,omitempty"`
	// Queue is the lab's place among those that wait for room on the host, from
	// 1; 0 when it waits for none.
	Queue int `json:"queue,omitempty"`
	// Deleted: the lab is gone for good.
	Deleted bool `json:"deleted,omitempty"`
	// Instance grows when the lab is restarted: seq starts again from 1.
	Instance int `json:"instance"`
}

// CheckStatus is the outcome of a check.
type CheckStatus string

// The outcomes. "fail" is "the learner is not there yet", "error" is "the
// checker could not tell".
const (
	CheckPending CheckStatus = "pending"
	CheckPass    CheckStatus = "pass"
	CheckFail    CheckStatus = "fail"
	CheckError   CheckStatus = "error"
)

// CheckResult is the outcome of one check just now.
type CheckResult struct {
	// Task and Check as in the exercise.
	Task   string      `json:"task"`
	Check  string      `json:"check"`
	Status CheckStatus `json:"status"`
	// Want and Got: what was expected and what was seen.
	Want Text `json:"want,omitempty"`
	Got  Text `json:"got,omitempty"`
	// Seq is the event that the result is as of.
	Seq uint64 `json:"seq,omitempty"`
	// At is when the status last changed.
	At time.Time `json:"at"`
}
