package bench

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"podlab/lab/agentapi"
	"podlab/server/launch"
)

// TestMain makes this binary the agent of the sandboxes that are measured: one
// that listens and does nothing.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "agent" {
		ln, err := net.Listen("unix", filepath.Join(agentapi.RunDir, agentapi.Socket))
		for err == nil {
			var c net.Conn
			if c, err = ln.Accept(); err == nil {
				c.Close()
			}
		}
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// TestPrivilegedSandboxes: the measuring measures, and cleans up.
func TestPrivilegedSandboxes(t *testing.T) {
	root := os.Getenv("PODLAB_ROOTFS")
	if root == "" {
		root = "/var/lib/podlab/rootfs/current"
	}
	l, err := launch.New(launch.Options{Data: t.TempDir(), RootFS: root})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	rows := Sandboxes(t.Context(), l, 3)
	for _, r := range rows {
		if r.Error != "" || r.Value <= 0 {
			t.Errorf("%s: %v %s %s", r.What, r.Value, r.Unit, r.Error)
		}
	}
	if rows[0].Value > rows[1].Value || rows[2].Value > rows[3].Value {
		t.Errorf("what comes first took longer: %+v", rows)
	}
	if left := l.List(); len(left) != 0 {
		t.Errorf("left: %+v", left)
	}
}
