package doctor

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestMain makes this binary the child that tries the kernel's features.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == ProbeCommand {
		ProbeMain()
	}
	os.Exit(m.Run())
}

func TestPrint(t *testing.T) {
	r := Report{
		Checks: []Check{
			{Group: GroupHost, Name: "kernel", State: Works, Required: true, Found: "6.18.0"},
			{Group: GroupSandbox, Name: "OCI runtime", State: Absent, Required: true, Found: "none", Fix: "apt-get install crun"},
			{Group: GroupLink, Name: "WireGuard", State: Absent, Found: "operation not supported", Instead: "wireguard-go, in user space", Fix: "modprobe wireguard"},
			{Group: GroupLink, Name: "veth", State: Unknown, Found: "operation not\npermitted"},
		},
		Labs: 40, Bound: "memory", Took: 123456 * time.Microsecond,
	}
	var b strings.Builder
	if err := r.Print(&b); err != nil {
		t.Fatal(err)
	}
	want := `HOST
  kernel       works    6.18.0
SANDBOX
  OCI runtime  MISSING  none
LINKS
  WireGuard    absent   instead: wireguard-go, in user space
  veth         unknown  operation not permitted

Room for about 40 labs; memory is what bounds them.

What to do:
  OCI runtime: apt-get install crun
  WireGuard: modprobe wireguard

Labs cannot run here: see what is MISSING. (looked for 123ms)
`
	if got := b.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestClassify(t *testing.T) {
	for _, test := range []struct {
		err  error
		want State
	}{
		{unix.EOPNOTSUPP, Absent},
		{fmt.Errorf("wrapped: %w", unix.ENOENT), Absent},
		{unix.EPROTONOSUPPORT, Absent},
		{unix.EPERM, Unknown},
		{unix.EBUSY, Unknown},
		{errors.New("anything"), Unknown},
	} {
		if got := classify(test.err); got != test.want {
			t.Errorf("classify(%v) = %s, want %s", test.err, got, test.want)
		}
	}
}

func TestLabsAreBoundByTheTightest(t *testing.T) {
	var r room
	r.add(Check{State: Works}, "memory", 30)
	r.add(Check{State: Works}, "processors", 20)
	r.add(Check{State: Unknown}, "what could not be told", 1)
	if n, what := r.labs(); n != 20 || what != "processors" {
		t.Errorf("got %d by %s, want 20 by processors", n, what)
	}
}

// TestPrivilegedRun looks at this very host: what labs need must work, every
// check must be whole, and nothing may be left of the looking.
func TestPrivilegedRun(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("doctor's attempts need root: run the tests as root")
	}
	before, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	r := Run(t.Context(), Options{Data: t.TempDir()})
	var b strings.Builder
	if err := r.Print(&b); err != nil {
		t.Fatal(err)
	}
	t.Log(b.String())
	seen := map[string]bool{}
	for _, c := range r.Checks {
		if seen[c.Name] {
			t.Errorf("%s is there twice", c.Name)
		}
		seen[c.Name] = true
		if c.State != Works && c.State != Absent && c.State != Unknown {
			t.Errorf("%s has state %q", c.Name, c.State)
		}
		if c.State != Works && c.Found == "" && c.Instead == "" {
			t.Errorf("%s is %s and does not say why", c.Name, c.State)
		}
		if c.Required && c.State == Absent && c.Fix == "" && c.Name != "root file system" {
			t.Errorf("%s is missing and nothing is said of what to do", c.Name)
		}
	}
	for _, name := range []string{"kernel", "root", "user namespaces", "OCI runtime", "cgroups", "idmapped mounts", "veth", "bridge", "vxlan", "nftables", "overlayfs in a user namespace"} {
		if c, ok := r.Get(name); !ok || c.State != Works {
			t.Errorf("%s: %+v, want it to work where labs are tested", name, c)
		}
	}
	// The data directory is empty: exactly that is missing.
	if c, _ := r.Get("root file system"); c.State != Absent || r.OK() {
		t.Errorf("an empty data directory: %+v, OK %v, want absent and not OK", c, r.OK())
	}
	if r.Labs < 1 {
		t.Errorf("room for %d labs, bound by %s", r.Labs, r.Bound)
	}
	after, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	mountsAfter, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if len(after) != len(before) || string(mountsAfter) != string(mounts) {
		t.Errorf("left behind: %d links (%d before), mounts:\n%s", len(after), len(before), mountsAfter)
	}
	j, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(j, &back); err != nil || len(back.Checks) != len(r.Checks) || back.Labs != r.Labs {
		t.Errorf("the JSON does not come back: %v", err)
	}
}

// TestPrivilegedMissing: what is not there is said to be absent, so that the
// attempts can fail.
func TestPrivilegedMissing(t *testing.T) {
	r := Run(t.Context(), Options{Data: t.TempDir(), Runtime: "no-such-runtime"})
	if c, _ := r.Get("OCI runtime"); c.State != Absent || c.Fix == "" {
		t.Errorf("a runtime that is not there: %+v", c)
	}
	err := tryLink(func(a netlink.LinkAttrs) netlink.Link {
		return &netlink.GenericLink{LinkAttrs: a, LinkType: "nosuchkind"}
	})
	if err == nil || classify(err) != Absent {
		t.Errorf("a kind of link that no kernel has: %v", err)
	}
	if err := askNetfilter(250, 0, 0, nil); classify(err) != Absent {
		t.Errorf("a part of netfilter that no kernel has: %v", err)
	}
}
