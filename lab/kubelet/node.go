package kubelet

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podlab/lab"
)

// kubeletVersion is what the nodes say: the version of the Kubernetes code that
// the lab's API is made of (go.mod).
const kubeletVersion = "v1.37.2"

// maxPods is a kubelet's default.
const maxPods = 110

// register makes the node's object, or brings that of the agent's last life up
// to date.
func (k *Kubelet) register(ctx context.Context) error {
	nodes := k.cfg.Client.Nodes()
	want := k.object()
	_, err := nodes.Create(ctx, want, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		var have *corev1.Node
		if have, err = nodes.Get(ctx, k.node.Name, metav1.GetOptions{}); err == nil {
			have = have.DeepCopy()
			have.Status = want.Status
			_, err = nodes.UpdateStatus(ctx, have, metav1.UpdateOptions{})
		}
	}
	if err != nil {
		return fmt.Errorf("cannot register node %s: %w", k.node.Name, err)
	}
	k.recorder.Eventf(nodeReference(k.node.Name), corev1.EventTypeNormal, "Starting", "Starting kubelet.")
	k.recorder.Eventf(nodeReference(k.node.Name), corev1.EventTypeNormal, "NodeReady", "Node %s status is now: NodeReady", k.node.Name)
	return nil
}

func nodeReference(name string) *corev1.ObjectReference {
	return &corev1.ObjectReference{Kind: "Node", Name: name, UID: "", APIVersion: "v1"}
}

// object is the node as its kubelet sees it.
func (k *Kubelet) object() *corev1.Node {
	labels := map[string]string{
		corev1.LabelHostname: k.node.Name, corev1.LabelArchStable: "amd64", corev1.LabelOSStable: "linux",
		"beta.kubernetes.io/arch": "amd64", "beta.kubernetes.io/os": "linux",
	}
	var cidrs []string
	for _, p := range k.node.PodCIDRs {
		cidrs = append(cidrs, p.String())
	}
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: k.node.Name, Labels: labels},
		Spec:       corev1.NodeSpec{PodCIDRs: cidrs, ProviderID: "podlab://" + k.node.Name},
		Status:     k.nodeStatus(),
	}
	if len(cidrs) > 0 {
		n.Spec.PodCIDR = cidrs[0]
	}
	return n
}

func (k *Kubelet) nodeStatus() corev1.NodeStatus {
	now := metav1.NewTime(k.cfg.Clock.Now())
	condition := func(kind corev1.NodeConditionType, status corev1.ConditionStatus, reason, message string) corev1.NodeCondition {
		return corev1.NodeCondition{Type: kind, Status: status, Reason: reason, Message: message, LastHeartbeatTime: now, LastTransitionTime: now}
	}
	var addresses []corev1.NodeAddress
	for _, a := range k.node.Addresses {
		addresses = append(addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a.String()})
	}
	addresses = append(addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: k.node.Name})
	var images []corev1.ContainerImage
	for _, img := range k.cfg.Images.Images() {
		images = append(images, corev1.ContainerImage{Names: img.Names})
	}
	capacity := corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewQuantity(int64(cpus()), resource.DecimalSI),
		corev1.ResourceMemory: *resource.NewQuantity(memory(), resource.BinarySI),
		corev1.ResourcePods:   *resource.NewQuantity(maxPods, resource.DecimalSI),
	}
	return corev1.NodeStatus{
		Capacity: capacity, Allocatable: capacity, Addresses: addresses, Images: images,
		Conditions: []corev1.NodeCondition{
			condition(corev1.NodeMemoryPressure, corev1.ConditionFalse, "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
			condition(corev1.NodeDiskPressure, corev1.ConditionFalse, "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
			condition(corev1.NodePIDPressure, corev1.ConditionFalse, "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
			condition(corev1.NodeReady, corev1.ConditionTrue, "KubeletReady", "kubelet is posting ready status"),
		},
		NodeInfo: k.nodeInfo(),
		DaemonEndpoints: corev1.NodeDaemonEndpoints{
			KubeletEndpoint: corev1.DaemonEndpoint{Port: 10250},
		},
	}
}

func (k *Kubelet) nodeInfo() corev1.NodeSystemInfo {
	var u unix.Utsname
	_ = unix.Uname(&u) // only fails for a bad pointer
	sum := sha256.Sum256([]byte(k.node.Name))
	id := hex.EncodeToString(sum[:16])
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // empty where it is hidden
	return corev1.NodeSystemInfo{
		MachineID: id, SystemUUID: id, BootID: strings.TrimSpace(string(boot)),
		KernelVersion: unix.ByteSliceToString(u.Release[:]), OSImage: osImage(), OperatingSystem: "linux", Architecture: "amd64",
		ContainerRuntimeVersion: "podlab://" + strings.TrimPrefix(k.cfg.Version, "v"), KubeletVersion: kubeletVersion,
	}
}

// osImage is the root file system's name, as in /etc/os-release.
func osImage() string {
	text, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "Debian GNU/Linux"
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
			return strings.Trim(strings.TrimSpace(v), `"`)
		}
	}
	return "Debian GNU/Linux"
}

func cpus() int {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil || set.Count() == 0 {
		return 1
	}
	return set.Count()
}

// memory is the machine's, or the limit of the cgroup if that is less, in bytes.
func memory() int64 {
	var total int64
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) > 1 && f[0] == "MemTotal:" {
				kib, _ := strconv.ParseInt(f[1], 10, 64)
				total = kib << 10
			}
		}
	}
	for _, path := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		if text, err := os.ReadFile(path); err == nil {
			if v, err := strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64); err == nil && v < total {
				total = v
			}
		}
	}
	return total
}

// nodeHosts is a node's /etc/hosts: every node by name.
func nodeHosts(spec lab.Spec) string {
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	for _, n := range spec.Nodes {
		for _, a := range n.Addresses {
			fmt.Fprintf(&b, "%s\t%s\n", a, n.Name)
		}
	}
	return b.String()
}

// clusterDNS is the address of the cluster's DNS service: the tenth of each
// service range, by custom.
func clusterDNS(spec lab.Spec) []netip.Addr {
	var addrs []netip.Addr
	for _, p := range spec.ServiceCIDRs {
		a := p.Masked().Addr()
		for range 10 {
			a = a.Next()
		}
		addrs = append(addrs, a)
	}
	return addrs
}
