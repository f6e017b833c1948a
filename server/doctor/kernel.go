package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"podlab/server/launch"
)

// ProbeCommand is the first argument of this program when it is to run
// ProbeMain.
const ProbeCommand = "doctor-probe"

// feature is something of the kernel that labs use, and how to try it.
type feature struct {
	group, name string
	required    bool
	// instead is what stands in for it, if anything does.
	instead string
	// module is the kernel module that has it, for advice.
	module string
	try    func() error
	// fix is advice beyond loading the module.
	fix string
}

// unused stands where a replacement will, once a lesson needs the feature.
const unused = "nothing, as no lesson uses it yet"

// unmask is what lets a container's user namespaces mount their own.
const unmask = "leave the host's /proc and /sys uncovered: in Docker, --security-opt systempaths=unconfined"

// probeTimeout bounds the child; a kernel that loads modules takes a moment.
const probeTimeout = 20 * time.Second

// probeInChild tries the kernel's features in a child that has namespaces like
// a lab's. They go with it.
func probeInChild(ctx context.Context) []Check {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", ProbeCommand)
	ids := []syscall.SysProcIDMap{{HostID: launch.FirstUID, Size: 65536}}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC,
		UidMappings: ids, GidMappings: ids, Credential: &syscall.Credential{},
		Pdeathsig: syscall.SIGKILL,
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var checks []Check
	if err == nil {
		err = json.Unmarshal(out.Bytes(), &checks)
	}
	namespaces := Check{Group: GroupSandbox, Name: "user namespaces", State: Works, Required: true, Found: "65536 ids from " + fmt.Sprint(launch.FirstUID)}
	if err != nil {
		namespaces.State, namespaces.Found = classify(err), fmt.Sprintf("%v %s", err, errs.String())
		namespaces.Fix = "allow user namespaces: sysctl user.max_user_namespaces=100000; in a container give it CAP_SYS_ADMIN, CAP_SETUID, CAP_SETGID and the host's ids"
		for _, f := range features() {
			checks = append(checks, Check{Group: f.group, Name: f.name, Required: f.required, State: Unknown, Found: "not tried: no user namespace"})
		}
	}
	return append([]Check{namespaces}, checks...)
}

// ProbeMain tries all features where it is and prints the checks as JSON. The
// process must be one of its own: it leaves interfaces and mounts behind.
func ProbeMain() {
	runtime.LockOSThread()
	var checks []Check
	for _, f := range features() {
		checks = append(checks, f.check())
	}
	if err := json.NewEncoder(os.Stdout).Encode(checks); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func (f feature) check() Check {
	c := Check{Group: f.group, Name: f.name, Required: f.required, State: Works}
	err := f.try()
	if err == nil {
		return c
	}
	c.State, c.Found = classify(err), err.Error()
	if c.State == Absent {
		c.Instead, c.Fix = f.instead, f.fix
		if hasModule(f.module) {
			c.Fix = "modprobe " + f.module
		}
	}
	return c
}

// hasModule tells whether the kernel could load a module that it has not.
func hasModule(name string) bool {
	var u unix.Utsname
	if name == "" || unix.Uname(&u) != nil {
		return false
	}
	b, err := os.ReadFile(filepath.Join("/lib/modules", unix.ByteSliceToString(u.Release[:]), "modules.dep"))
	return err == nil && bytes.Contains(b, []byte("/"+name+".ko"))
}

// classify tells an absence from a failure that says nothing about it.
func classify(err error) State {
	for _, absent := range []error{
		unix.EOPNOTSUPP, unix.ENOENT, unix.ENODEV, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT,
		unix.ENOSYS, unix.ENOPROTOOPT, unix.ENXIO, unix.ESOCKTNOSUPPORT,
	} {
		if errors.Is(err, absent) {
			return Absent
		}
	}
	// A user namespace that cannot be made at all is as good as none.
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EUSERS) {
		return Absent
	}
	return Unknown
}

func features() []feature {
	link := func(name string, required bool, instead, module string, l func(netlink.LinkAttrs) netlink.Link) feature {
		return feature{group: GroupLink, name: name, required: required, instead: instead, module: module, try: func() error { return tryLink(l) }}
	}
	qdisc := func(name, instead string, q func(netlink.QdiscAttrs) netlink.Qdisc) feature {
		return feature{group: GroupTraffic, name: name, instead: instead, module: "sch_" + name, try: func() error { return tryQdisc(q) }}
	}
	underlay := func() int { return 1 } // lo serves as lower device where one is needed by index only
	return []feature{
		{group: GroupSandbox, name: "proc in a user namespace", required: true, try: func() error { return tryMount("proc", "") }, fix: unmask},
		{group: GroupSandbox, name: "sysfs in a user namespace", required: true, try: func() error { return tryMount("sysfs", "") }, fix: unmask},
		{group: GroupSandbox, name: "overlayfs in a user namespace", required: true, module: "overlay", try: tryOverlay, fix: "use Linux 5.19 or later with overlayfs"},

		link("veth", true, "", "veth", func(a netlink.LinkAttrs) netlink.Link {
			return &netlink.Veth{LinkAttrs: a, PeerName: "peer0"}
		}),
		link("bridge", true, "", "bridge", func(a netlink.LinkAttrs) netlink.Link { return &netlink.Bridge{LinkAttrs: a} }),
		link("bridge VLAN filtering", false, unused, "", func(a netlink.LinkAttrs) netlink.Link {
			on := true
			return &netlink.Bridge{LinkAttrs: a, VlanFiltering: &on}
		}),
		link("vxlan", true, "", "vxlan", func(a netlink.LinkAttrs) netlink.Link {
			return &netlink.Vxlan{LinkAttrs: a, VxlanId: 42, Port: 4789}
		}),
		{group: GroupLink, name: "macvlan", required: false, instead: unused, module: "macvlan", try: func() error {
			return tryOver(func(a netlink.LinkAttrs) netlink.Link {
				return &netlink.Macvlan{LinkAttrs: a, Mode: netlink.MACVLAN_MODE_BRIDGE}
			})
		}},
		{group: GroupLink, name: "ipvlan", required: false, instead: unused, module: "ipvlan", try: func() error {
			return tryOver(func(a netlink.LinkAttrs) netlink.Link {
				return &netlink.IPVlan{LinkAttrs: a, Mode: netlink.IPVLAN_MODE_L3}
			})
		}},
		{group: GroupLink, name: "802.1Q VLAN", required: false, instead: unused, module: "8021q", try: func() error {
			return tryOver(func(a netlink.LinkAttrs) netlink.Link { return &netlink.Vlan{LinkAttrs: a, VlanId: 42} })
		}},
		link("dummy", false, unused, "dummy", func(a netlink.LinkAttrs) netlink.Link {
			return &netlink.Dummy{LinkAttrs: a}
		}),
		link("VRF", false, unused, "vrf", func(a netlink.LinkAttrs) netlink.Link {
			return &netlink.Vrf{LinkAttrs: a, Table: 42}
		}),
		{group: GroupLink, name: "TUN and TAP", required: false, instead: unused, module: "tun", try: tryTUN},
		link("GRE", false, unused, "ip_gre", func(a netlink.LinkAttrs) netlink.Link {
			return &netlink.Gretun{LinkAttrs: a, Local: net.IPv4(127, 0, 0, 1), Remote: net.IPv4(127, 0, 0, 2)}
		}),
		link("IPIP", false, unused, "ipip", func(a netlink.LinkAttrs) netlink.Link {
			return &netlink.Iptun{LinkAttrs: a, Local: net.IPv4(127, 0, 0, 1), Remote: net.IPv4(127, 0, 0, 2), Link: uint32(underlay())}
		}),
		link("geneve", false, unused, "geneve", func(a netlink.LinkAttrs) netlink.Link {
			return &netlink.Geneve{LinkAttrs: a, ID: 42, Remote: net.IPv4(127, 0, 0, 2)}
		}),
		link("WireGuard", false, unused, "wireguard", func(a netlink.LinkAttrs) netlink.Link {
			return &netlink.Wireguard{LinkAttrs: a}
		}),
		{group: GroupLink, name: "IPsec ESP", required: false, instead: unused, module: "esp4", try: tryESP},

		qdisc("netem", unused, func(a netlink.QdiscAttrs) netlink.Qdisc {
			return netlink.NewNetem(a, netlink.NetemQdiscAttrs{Latency: 1000})
		}),
		qdisc("htb", unused, func(a netlink.QdiscAttrs) netlink.Qdisc { return netlink.NewHtb(a) }),
		qdisc("tbf", unused, func(a netlink.QdiscAttrs) netlink.Qdisc {
			return &netlink.Tbf{QdiscAttrs: a, Rate: 1 << 20, Limit: 1 << 16, Buffer: 1 << 16}
		}),
		qdisc("fq_codel", unused, func(a netlink.QdiscAttrs) netlink.Qdisc { return netlink.NewFqCodel(a) }),

		{group: GroupFilter, name: "nftables", required: true, instead: "", module: "nf_tables", try: tryNftables},
		{group: GroupFilter, name: "iptables over nftables", required: false, instead: unused, module: "nft_compat", try: tryIptablesNft},
		{group: GroupFilter, name: "iptables legacy", required: false, instead: "iptables over nftables", module: "iptable_filter", try: tryIptablesLegacy},
		{group: GroupFilter, name: "connection tracking", required: false, instead: unused, module: "nf_conntrack_netlink", try: tryConntrack},
	}
}

// tryLink makes an interface of a kind.
func tryLink(l func(netlink.LinkAttrs) netlink.Link) error {
	a := netlink.NewLinkAttrs()
	a.Name = "try0"
	if err := netlink.LinkAdd(l(a)); err != nil {
		return err
	}
	made, err := netlink.LinkByName("try0")
	if err != nil {
		return err
	}
	return netlink.LinkDel(made)
}

// tryOver makes an interface on top of a veth.
func tryOver(l func(netlink.LinkAttrs) netlink.Link) error {
	lower, err := lowerLink()
	if err != nil {
		return err
	}
	return tryLink(func(a netlink.LinkAttrs) netlink.Link {
		a.ParentIndex = lower.Attrs().Index
		return l(a)
	})
}

// lowerLink is an interface that others are tried on; it is made once.
func lowerLink() (netlink.Link, error) {
	const name = "lower0"
	if l, err := netlink.LinkByName(name); err == nil {
		return l, nil
	}
	a := netlink.NewLinkAttrs()
	a.Name, a.TxQLen = name, 1000
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: a, PeerName: "lower1"}); err != nil {
		// Not wrapped: it says nothing about the feature that is being tried.
		return nil, errors.New("no interface to try it on: " + err.Error())
	}
	return netlink.LinkByName(name)
}

// tryQdisc puts a queue on an interface.
func tryQdisc(q func(netlink.QdiscAttrs) netlink.Qdisc) error {
	lower, err := lowerLink()
	if err != nil {
		return err
	}
	qd := q(netlink.QdiscAttrs{LinkIndex: lower.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT})
	if err := netlink.QdiscAdd(qd); err != nil {
		return err
	}
	return netlink.QdiscDel(qd)
}

func tryESP() error {
	state := &netlink.XfrmState{
		Src: net.IPv4(127, 0, 0, 1), Dst: net.IPv4(127, 0, 0, 2), Proto: netlink.XFRM_PROTO_ESP, Mode: netlink.XFRM_MODE_TUNNEL,
		Spi: 4242, Aead: &netlink.XfrmStateAlgo{Name: "rfc4106(gcm(aes))", Key: make([]byte, 20), ICVLen: 128},
	}
	if err := netlink.XfrmStateAdd(state); err != nil {
		return err
	}
	return netlink.XfrmStateDel(state)
}

func tryTUN() error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("/dev/net/tun: %w", err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("try1")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	return unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
}

// tryMount mounts a file system over a directory of the child's own.
func tryMount(kind, data string) error {
	dir, err := scratch()
	if err != nil {
		return err
	}
	target := filepath.Join(dir, kind)
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(kind, target, kind, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, data); err != nil {
		if errors.Is(err, unix.EPERM) && (kind == "proc" || kind == "sysfs") {
			// The kernel's way to say that the host's own is partly covered.
			return fmt.Errorf("%w: the host's own %s is masked in part; in Docker, run with --security-opt systempaths=unconfined", unix.EOPNOTSUPP, kind)
		}
		return err
	}
	return unix.Unmount(target, unix.MNT_DETACH)
}

func tryOverlay() error {
	dir, err := scratch()
	if err != nil {
		return err
	}
	for _, d := range []string{"lower", "upper", "work"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	return tryMount("overlay", fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work,userxattr", dir))
}

// scratch is a tmpfs of the child's own; it goes with its mount namespace.
func scratch() (string, error) {
	const dir = "/tmp"
	var st unix.Statfs_t
	marker := filepath.Join(dir, ".podlab-doctor")
	if _, err := os.Stat(marker); err == nil && unix.Statfs(dir, &st) == nil && st.Type == unix.TMPFS_MAGIC {
		return dir, nil
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return "", err
	}
	if err := unix.Mount("doctor", dir, "tmpfs", 0, "size=1m,mode=755"); err != nil {
		return "", err
	}
	return dir, os.WriteFile(marker, nil, 0o600)
}
