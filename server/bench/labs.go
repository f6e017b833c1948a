package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"podlab/lab"
	"podlab/lab/agentapi"
	"podlab/server/api"
	"podlab/web/view"
)

// creates measures what a learner waits for: from the request to ready pods
// and a shell's prompt, and the deletion.
func (e *env) creates(ctx context.Context) ([]Row, error) {
	var ready, prompt, deleted, gone []float64
	for i := range e.Rounds {
		began := time.Now()
		l, err := e.api.CreateLab(ctx, api.NewLab{Name: fmt.Sprintf("bench %d", i)})
		if err != nil {
			return nil, err
		}
		if err := e.api.Await(ctx, l.ID, nil); err != nil {
			return nil, err
		}
		ready = append(ready, millis(time.Since(began)))
		if err := e.awaitPrompt(ctx, l.ID); err != nil {
			return nil, err
		}
		prompt = append(prompt, millis(time.Since(began)))
		began = time.Now()
		if err := e.api.DeleteLab(ctx, l.ID); err != nil {
			return nil, err
		}
		deleted = append(deleted, millis(time.Since(began)))
		if err := e.awaitGone(ctx, l.ID); err != nil {
			return nil, err
		}
		gone = append(gone, millis(time.Since(began)))
	}
	return []Row{
		{What: "lab created → default pods ready, p50", Value: percentile(ready, 50), Unit: "ms", Beside: fmt.Sprintf("of %d", e.Rounds)},
		{What: "lab created → pods ready and shell prompt, p50", Value: percentile(prompt, 50), Unit: "ms", Limit: 250},
		{What: "lab created → pods ready and shell prompt, p95", Value: percentile(prompt, 95), Unit: "ms", Limit: 500},
		{What: "lab deleted by the API → call returns, p95", Value: percentile(deleted, 95), Unit: "ms", Limit: 50},
		{What: "lab deleted by the API → directory gone, p95", Value: percentile(gone, 95), Unit: "ms", Limit: 1000},
	}, nil
}

// awaitPrompt opens a terminal in pod-a and waits for its prompt.
func (e *env) awaitPrompt(ctx context.Context, id string) error {
	t, err := e.api.OpenTerminal(ctx, id, agentapi.TerminalRequest{Target: "pod-a", Cols: 80, Rows: 24})
	if err != nil {
		return err
	}
	conn, err := e.api.Attach(ctx, id, t.ID)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	var seen []byte
	for !bytes.ContainsRune(seen, '#') {
		kind, p, err := conn.ReadMessage()
		if err != nil {
			return fmt.Errorf("no prompt, only %q: %w", seen, err)
		}
		if kind == websocket.BinaryMessage {
			seen = append(seen, p...)
		}
	}
	return nil
}

// changes is how many kernel changes are timed.
const changes = 300

// firstMTU is the MTU of the first change; each change adds one.
const firstMTU = 50_000

// changeScript makes changes and prints the moment before each: what comes
// between, the start of ip itself, counts against us. The pause keeps the
// script from taking a processor for itself.
const changeScript = `for i in $(seq %d %d); do echo $i $EPOCHREALTIME; ip link set lo mtu $i; sleep 0.01; done`

// events measures from a change in a node's kernel to the event on a
// browser's WebSocket.
func (e *env) events(ctx context.Context) ([]Row, error) {
	l, err := e.create(ctx, "events", "")
	if err != nil {
		return nil, err
	}
	defer e.delete(ctx, l)
	stream, err := e.api.Events(ctx, l)
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	done := make(chan map[int]time.Time, 1)
	go func() { done <- mtusSeen(stream) }()
	out, err := e.api.Output(ctx, l, "node:node1", "bash", "-c", fmt.Sprintf(changeScript, firstMTU, firstMTU+changes-1))
	if err != nil {
		return nil, err
	}
	var seen map[int]time.Time
	select {
	case seen = <-done:
	case <-time.After(20 * time.Second):
		return nil, errors.New("not all changes came as events")
	}
	var took []float64
	for line := range strings.Lines(out) {
		number, moment, _ := strings.Cut(strings.TrimSpace(line), " ")
		mtu, err1 := strconv.Atoi(number)
		seconds, err2 := strconv.ParseFloat(moment, 64)
		at, ok := seen[mtu]
		if err1 != nil || err2 != nil || !ok {
			return nil, fmt.Errorf("change %q has no event", strings.TrimSpace(line))
		}
		took = append(took, float64(at.UnixNano())/1e6-seconds*1e3)
	}
	beside := fmt.Sprintf("%d changes by ip, whose own start of 1 to 2 ms is in the figure", len(took))
	return []Row{
		{What: "kernel change → event on the page's socket, p50", Value: percentile(took, 50), Unit: "ms", Beside: beside},
		{What: "kernel change → event on the page's socket, p99", Value: percentile(took, 99), Unit: "ms", Limit: 20, Beside: beside},
	}, nil
}

// mtusSeen reads events until the last change has come, and returns when each
// MTU was first seen, or one after it: two changes in a millisecond may be told
// as one, the outcome of both.
func mtusSeen(stream *websocket.Conn) map[int]time.Time {
	seen := map[int]time.Time{}
	next := firstMTU
	for {
		var m view.StreamMessage
		if stream.ReadJSON(&m) != nil {
			return seen
		}
		if m.Event == nil || m.Event.Kind != lab.EventLinkSet || m.Event.NS != "node/node1" || m.Event.Link.Name != "lo" || m.Event.Link.MTU >= firstMTU+changes {
			continue
		}
		for now := time.Now(); next <= m.Event.Link.MTU; next++ {
			seen[next] = now
		}
		if next == firstMTU+changes {
			return seen
		}
	}
}

// fourth is one pod more than the default lab has.
const fourth = `apiVersion: v1
kind: Pod
metadata:
  name: pod-d
  annotations: {podlab.io/ips: "10.244.2.11,fd00:10:244:2::11"} # not one of the others'
spec:
  nodeSelector: {kubernetes.io/hostname: node2}
  terminationGracePeriodSeconds: 1
  containers:
  - {name: app, image: nicolaka/netshoot, command: [sleep, infinity]}
`

// many creates labs of four pods all at once, then works in each.
func (e *env) many(ctx context.Context) ([]Row, error) {
	began := time.Now()
	ids, err := forEach(e.Labs, func(i int) (string, error) {
		return e.create(ctx, fmt.Sprintf("many %d", i), lab.DefaultPods+"---\n"+fourth)
	})
	took := time.Since(began)
	defer func() {
		_, _ = forEach(len(ids), func(i int) (string, error) { e.delete(ctx, ids[i]); return "", nil })
	}()
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var answers []float64
	_, err = forEach(len(ids), func(i int) (string, error) {
		asked := time.Now()
		_, err := e.api.Output(ctx, ids[i], "pod-d", "ip", "-br", "addr")
		mu.Lock()
		defer mu.Unlock()
		answers = append(answers, millis(time.Since(asked)))
		return "", err
	})
	if err != nil {
		return nil, err
	}
	return []Row{
		{What: fmt.Sprintf("%d labs of 4 pods at once: all ready", e.Labs), Value: took.Seconds(), Unit: "s", Limit: 10},
		{What: fmt.Sprintf("%d labs: a command in each, all at once, slowest answer", e.Labs), Value: percentile(answers, 100), Unit: "ms"},
	}, nil
}

// forEach runs f for 0 to n-1 at once and joins what they give.
func forEach(n int, f func(int) (string, error)) ([]string, error) {
	out, errs := make([]string, n), make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { out[i], errs[i] = f(i) })
	}
	wg.Wait()
	return out, errors.Join(errs...)
}

// create makes a lab that is ready; pods are those of the default lab if none
// are given.
func (e *env) create(ctx context.Context, name, pods string) (string, error) {
	l, err := e.api.CreateLab(ctx, api.NewLab{Name: name, Manifest: pods})
	if err != nil {
		return "", err
	}
	return l.ID, e.api.Await(ctx, l.ID, nil)
}

func (e *env) delete(ctx context.Context, id string) {
	ctx = context.WithoutCancel(ctx)
	if e.api.DeleteLab(ctx, id) == nil {
		_ = e.awaitGone(ctx, id)
	}
}
