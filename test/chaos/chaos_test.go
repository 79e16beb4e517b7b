// Package chaos kills the built programs at random while writers write, and checks that nothing was lost or repeated.
//
//	CHAOS_SEED   what is killed when; a run prints its seed (default: by the clock)
//	CHAOS_KILLS  how many kills (default 30)
package chaos

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/test/harness"
)

func TestMain(m *testing.M) {
	code := m.Run()
	harness.Cleanup()
	os.Exit(code)
}

func TestKillsLoseAndRepeatNothing(t *testing.T) {
	seed, kills := setting(t, "CHAOS_SEED", uint64(time.Now().UnixNano()%1_000_000)), int(setting(t, "CHAOS_KILLS", 30))
	t.Logf("CHAOS_SEED=%d CHAOS_KILLS=%d", seed, kills)
	random := rand.New(rand.NewPCG(seed, 0))

	s := harness.New(t, harness.Options{})
	s.Receiver.Fail(0.1)
	services := []string{"ingest", "ingest-2", "worker", "worker-2", "worker-3", "jobrunner", "jobrunner-2"}
	s.Start(services...)
	s.WaitForLeader()

	victims := append([]string{"nats"}, services...)
	changes := 0
	for done := 0; done < kills; {
		load := s.Write(1500, 8, 500, seed+uint64(done))
		for ; done < kills && load.Commits() < 1500; done++ {
			time.Sleep(time.Duration(200+random.IntN(1800)) * time.Millisecond)
			victim := victims[random.IntN(len(victims))]
			s.Kill(victim)
			time.Sleep(time.Duration(random.IntN(1500)) * time.Millisecond)
			s.Start(victim)
		}
		changes = load.Wait()
	}
	s.WaitForDone(changes, 4*time.Minute)
	s.Settle()

	s.CheckStream(changes)
	s.Receiver.CheckBytes()
	if done := s.Receiver.Done(); done != changes {
		t.Errorf("%d effects were done for %d changes", done, changes)
	}
	// A kill between an effect and its record leaves it in doubt: it repeats, under its key, with its bytes. Nothing else may.
	effects, more := s.Receiver.Repeated()
	inDoubt := kills * harness.Concurrency * 3
	t.Logf("%d changes, %d kills, %d effects in doubt were repeated %d times, %d dead letters", changes, kills, effects, more, s.CountDeadLetters())
	if effects > inDoubt {
		t.Errorf("%d effects were repeated, more than %d kills can leave in doubt", effects, kills)
	}
}

func setting(t *testing.T, name string, otherwise uint64) uint64 {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}
