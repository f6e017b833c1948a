package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"podlab/lab"
	"podlab/server/api"
)

// kills is how often the server is killed.
const kills = 20

// TestPrivilegedKilledServer kills the server at random moments while labs are
// created and deleted. After each restart the labs that were ready are ready,
// with their shells and pods, and of every other nothing is left.
func TestPrivilegedKilledServer(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	s := watch(t)
	keeper := s.create(ctx, "keeper")
	s.mustRun(ctx, keeper, "pod-a", "echo kept >/tmp/mark")
	victim := s.create(ctx, "victim")
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	for round := range kills {
		// A lab is deleted and another created while the server dies.
		var wg sync.WaitGroup
		wg.Go(func() { s.api.DeleteLab(ctx, victim) })
		wg.Go(func() { s.api.CreateLab(ctx, api.NewLab{Name: fmt.Sprint("killed ", round), Wait: true}) })
		<-time.After(time.Duration(random.IntN(350)) * time.Millisecond)
		s.kill(t)
		wg.Wait()
		s.start(s.data)

		if got := s.mustRun(ctx, keeper, "pod-a", "cat /tmp/mark"); got != "kept\n" {
			t.Fatalf("round %d: the lab that was ready has lost its files: %q", round, got)
		}
		s.mustRun(ctx, keeper, "pod-a", "ping -c1 -W2 10.244.2.10")
		left := s.settled(ctx)
		if !slices.Contains(left, keeper) {
			t.Fatalf("round %d: the lab that was ready is not ready: %v", round, left)
		}
		s.awaitTraces(ctx, left)
		for _, id := range left {
			if id != keeper {
				s.mustRun(ctx, id, "pod-b", "ip addr show eth0")
				if err := s.api.DeleteLab(ctx, id); err != nil {
					t.Fatal(err)
				}
			}
		}
		s.awaitTraces(ctx, []string{keeper})
		victim = s.create(ctx, fmt.Sprint("victim ", round))
	}
}

// settled waits until no lab is on its way and returns those that are ready;
// a failed one is an error.
func (s *watched) settled(ctx context.Context) []string {
	s.t.Helper()
	for {
		labs, err := s.api.Labs(ctx, true)
		if err != nil {
			s.t.Fatal(err)
		}
		var ready []string
		moving := false
		for _, l := range labs {
			switch l.Phase {
			case lab.PhaseReady:
				ready = append(ready, l.ID)
			case lab.PhaseFailed:
				s.t.Fatalf("lab %s has failed: %s", l.ID, l.Reason)
			default:
				moving = true
			}
		}
		if !moving {
			return ready
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			s.t.Fatal("labs do not settle")
		}
	}
}
