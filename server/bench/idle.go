package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"podlab/lab"
	"podlab/server/launch"
)

// settleFor is how long a lab is left alone before it counts as idle: the
// agent gives the memory of its start back a few seconds after it.
const settleFor = 5 * time.Second

// idleFor is how long the idle lab's CPU time is counted.
const idleFor = 20 * time.Second

// idle measures a lab of four pods that nobody looks at.
func (e *env) idle(ctx context.Context) ([]Row, error) {
	id, err := e.create(ctx, "idle", lab.DefaultPods+"---\n"+fourth)
	if err != nil {
		return nil, err
	}
	defer e.delete(ctx, id)
	if err := pause(ctx, settleFor); err != nil {
		return nil, err
	}
	pids, err := launch.Processes(filepath.Join(e.dir, "server"), id)
	if err != nil {
		return nil, err
	}
	before, err := cpuTime(pids)
	if err != nil {
		return nil, err
	}
	if err := pause(ctx, idleFor); err != nil {
		return nil, err
	}
	after, err := cpuTime(pids)
	if err != nil {
		return nil, err
	}
	var agent, whole memory
	for _, pid := range pids {
		m, err := memoryOf(pid)
		if err != nil {
			return nil, err
		}
		whole.proportional += m.proportional
		if m.private > agent.private { // the agent is by far the largest
			agent = m
		}
	}
	beside := fmt.Sprintf("4 pods, %d processes", len(pids))
	return []Row{
		{What: "idle lab: agent's private memory", Value: mib(agent.private), Unit: "MiB", Limit: 25, Beside: beside},
		{What: "idle lab: whole lab, proportional set size", Value: mib(whole.proportional), Unit: "MiB", Limit: 45, Beside: beside},
		{What: "idle lab: CPU", Value: 100 * float64(after-before) / float64(idleFor), Unit: "% of a core", Limit: 0.2,
			Beside: fmt.Sprintf("%v in %v", (after - before).Round(10*time.Microsecond), idleFor)},
	}, nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// memory of a process, in bytes.
type memory struct{ private, proportional int64 }

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// memoryOf reads /proc/PID/smaps_rollup (proc_pid_smaps(5)).
func memoryOf(pid int) (memory, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return memory{}, err
	}
	var m memory
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 3 {
			continue
		}
		kib, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			continue // the line with the addresses
		}
		switch fields[0] {
		case "Pss:":
			m.proportional = kib << 10
		case "Private_Clean:", "Private_Dirty:":
			m.private += kib << 10
		}
	}
	return m, nil
}

// cpuTime adds up what the threads of processes have run: the first field of
// schedstat, in nanoseconds (Documentation/scheduler/sched-stats.rst).
func cpuTime(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		if err != nil {
			return 0, err
		}
		for _, path := range threads {
			text, err := os.ReadFile(path)
			if err != nil {
				continue // the thread has ended
			}
			first, _, _ := strings.Cut(string(text), " ")
			ns, err := strconv.ParseInt(first, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", path, err)
			}
			sum += time.Duration(ns)
		}
	}
	return sum, nil
}
