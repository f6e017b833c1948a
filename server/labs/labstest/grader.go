package labstest

import (
	"context"
	"time"

	"podlab/server/agentclient"
	"podlab/web/view"
)

// Grader passes each check whose id an op event names as its command: the op
// "pass one/a" makes check a of task one green.
type Grader struct{}

// Watch implements labs.Grader.
func (Grader) Watch(ctx context.Context, _ string, agent *agentclient.Client, report func([]view.CheckResult)) {
	events, err := agent.Events(ctx, nil)
	if err != nil {
		return
	}
	defer events.Close()
	if _, err := events.Next(); err != nil { // the snapshot: from here on nothing is missed
		return
	}
	report([]view.CheckResult{
		{Task: "one", Check: "a", Status: view.CheckFail, At: time.Now()},
		{Task: "one", Check: "b", Status: view.CheckFail, At: time.Now()},
	})
	for {
		m, err := events.Next()
		if err != nil {
			return
		}
		if m.Event == nil || m.Event.Op == nil {
			continue
		}
		switch m.Event.Op.Command {
		case "pass one/a":
			report([]view.CheckResult{{Task: "one", Check: "a", Status: view.CheckPass, At: time.Now(), Seq: m.Event.Seq}})
		case "pass one/b":
			report([]view.CheckResult{{Task: "one", Check: "b", Status: view.CheckPass, At: time.Now(), Seq: m.Event.Seq}})
		}
	}
}
