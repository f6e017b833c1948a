package labtest

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"podlab/lab/netns"
)

func TestMain(m *testing.M) { Main(m) }

func TestPrivilegedSandbox(t *testing.T) {
	Privileged(t)
	if pid := os.Getpid(); pid != 1 {
		t.Errorf("the sandbox's process is %d, want PID 1", pid)
	}
	text, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(strings.Fields(string(text)), " "); got != "0 1000000000 65536" {
		t.Errorf("the uid map is %q", got)
	}
	// Nothing of the host may be changed from here.
	if err := syscall.Sethostname([]byte("podlab-test")); err != nil {
		t.Errorf("the sandbox's own host name: %v", err)
	}
	if err := os.WriteFile("/proc/sys/vm/swappiness", []byte("60"), 0); err == nil {
		t.Error("the sandbox may change the host's memory settings")
	}
	links, err := netLinks()
	if err != nil || len(links) == 0 || links[0] != "lo" {
		t.Errorf("links %v, %v", links, err)
	}
}

// netLinks are the links of the process's own namespace, from its own /proc.
func netLinks() ([]string, error) {
	text, err := os.ReadFile("/proc/self/net/dev")
	if err != nil {
		return nil, err
	}
	var names []string
	for line := range strings.Lines(string(text)) {
		if name, _, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			names = append(names, name)
		}
	}
	return names, nil
}

func TestPrivilegedLeaksAreFound(t *testing.T) {
	Privileged(t)
	warm, err := netns.New(nil) // package netns opens its home at first use
	if err != nil {
		t.Fatal(err)
	}
	warm.Close()
	before, err := openFiles()
	if err != nil {
		t.Fatal(err)
	}
	if err := leaks(before); err != nil {
		t.Fatalf("leaks without a leak: %v", err)
	}

	file, err := os.Open("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	if err := leaks(before); err == nil || !strings.Contains(err.Error(), "/etc/passwd") {
		t.Errorf("an open file: %v", err)
	}
	file.Close()

	ns, err := netns.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := leaks(before); err == nil || !strings.Contains(err.Error(), "net:[") {
		t.Errorf("an open namespace: %v", err)
	}
	ns.Close()

	stop := make(chan struct{})
	ended := make(chan struct{})
	go func() { <-stop; close(ended) }()
	if err := leaks(before); err == nil || !strings.Contains(err.Error(), "goroutines") {
		t.Errorf("a goroutine: %v", err)
	}
	close(stop)
	<-ended
}
