package bench

import (
	"context"
	"fmt"
	"time"

	"podlab/lab"
	"podlab/lab/agentapi"
	"podlab/server/launch"
)

// Sandboxes starts and deletes n sandboxes, one after the other, and measures
// the launcher's share of what a learner waits for. The sandboxes hold the
// default lab without pods, so that the agent's own work is small.
func Sandboxes(ctx context.Context, l *launch.Launcher, n int) []Row {
	var created, answers, deleted, gone []float64
	err := func() error {
		for i := range n {
			times, err := oneSandbox(ctx, l, fmt.Sprintf("bench-%d", i))
			if err != nil {
				return err
			}
			created, answers = append(created, times[0]), append(answers, times[1])
			deleted, gone = append(deleted, times[2]), append(gone, times[3])
		}
		return nil
	}()
	rows := []Row{
		{What: "sandbox: runtime has started the agent, p50", Value: percentile(created, 50), Limit: 40},
		{What: "sandbox: agent's socket is there, p50", Value: percentile(answers, 50)},
		{What: "lab deleted: call returns, p95", Value: percentile(deleted, 95), Limit: 50},
		{What: "lab deleted: everything gone, p95", Value: percentile(gone, 95), Limit: 1000},
	}
	for i := range rows {
		rows[i].Unit = "ms"
		if err != nil {
			rows[i].Value, rows[i].Error = 0, err.Error()
		}
	}
	return rows
}

// oneSandbox returns the milliseconds until created and until the socket was
// there, and from delete until it returned and until nothing was left.
func oneSandbox(ctx context.Context, l *launch.Launcher, id string) (times [4]float64, err error) {
	began := time.Now()
	since := func() float64 { return float64(time.Since(began)) / float64(time.Millisecond) }
	if _, err = l.Create(ctx, launch.Request{ID: id, Config: agentapi.Config{ID: id, Lab: lab.DefaultLab()}}); err != nil {
		return times, err
	}
	times[0] = since()
	err = awaitSocket(ctx, l, id)
	times[1] = since()
	gone := l.Gone(id)
	began = time.Now()
	if deleteErr := l.Delete(ctx, id); deleteErr != nil {
		return times, deleteErr
	}
	times[2] = since()
	select {
	case <-gone:
	case <-ctx.Done():
		return times, context.Cause(ctx)
	}
	times[3] = since()
	return times, err
}

// awaitSocket returns when the agent's socket takes a connection.
func awaitSocket(ctx context.Context, l *launch.Launcher, id string) error {
	ended, err := l.Watch(id)
	if err != nil {
		return err
	}
	tick := time.NewTicker(500 * time.Microsecond)
	defer tick.Stop()
	for {
		if conn, err := l.Dial(ctx, id); err == nil {
			return conn.Close()
		}
		select {
		case <-tick.C:
		case e := <-ended:
			return fmt.Errorf("%s: %s", e.Reason, e.Log)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
