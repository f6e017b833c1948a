package kubelet

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	clocktesting "k8s.io/utils/clock/testing"

	"podlab/lab"
	"podlab/lab/image"
	"podlab/lab/runtime"
)

func TestArguments(t *testing.T) {
	img := image.Image{Entrypoint: []string{"/entry", "$(A)"}, Args: []string{"default"}}
	env := map[string]string{"A": "1"}
	tests := []struct {
		name          string
		command, args []string
		want          []string
	}{
		{"neither", nil, nil, []string{"/entry", "$(A)", "default"}},
		{"args", nil, []string{"x$(A)"}, []string{"/entry", "$(A)", "x1"}},
		{"command", []string{"sh"}, nil, []string{"sh"}},
		{"both", []string{"sh", "$(A)"}, []string{"$$(A)", "$(B)"}, []string{"sh", "1", "$(A)", "$(B)"}},
	}
	for _, tt := range tests {
		if got := arguments(&corev1.Container{Command: tt.command, Args: tt.args}, img, env); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestPodHosts(t *testing.T) {
	ips := []netip.Addr{netip.MustParseAddr("10.244.1.10"), netip.MustParseAddr("fd00:10:244:1::10")}
	got := podHosts(ips, "pod-a", "", []corev1.HostAlias{{IP: "1.2.3.4", Hostnames: []string{"foo", "bar"}}})
	want := `# Kubernetes-managed hosts file.
127.0.0.1	localhost
::1	localhost ip6-localhost ip6-loopback
fe00::0	ip6-localnet
fe00::0	ip6-mcastprefix
fe00::1	ip6-allnodes
fe00::2	ip6-allrouters
10.244.1.10	pod-a
fd00:10:244:1::10	pod-a

# Entries added by HostAliases.
1.2.3.4	foo	bar
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestPodResolvConf(t *testing.T) {
	two := "2"
	tests := []struct {
		name string
		spec corev1.PodSpec
		want string
	}{
		{"cluster first", corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirst}, "search web.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"},
		{"host network", corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirst, HostNetwork: true}, ""},
		{"none", corev1.PodSpec{DNSPolicy: corev1.DNSNone, DNSConfig: &corev1.PodDNSConfig{Nameservers: []string{"1.1.1.1"}, Searches: []string{"a.b"}}}, "search a.b\nnameserver 1.1.1.1\n"},
		{
			"with a config",
			corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirst, DNSConfig: &corev1.PodDNSConfig{
				Searches: []string{"cluster.local", "x"}, Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: &two}, {Name: "edns0"}},
			}},
			"search web.svc.cluster.local svc.cluster.local cluster.local x\nnameserver 10.96.0.10\noptions ndots:2 edns0\n",
		},
	}
	for _, tt := range tests {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "web"}, Spec: tt.spec}
		if got := podResolvConf(pod, lab.DefaultLab().Spec); got != tt.want {
			t.Errorf("%s:\n%s\nwant\n%s", tt.name, got, tt.want)
		}
	}
}

func TestHostnameAndDomain(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: strings.Repeat("a", 62) + "-b"}}
	if name, domain := hostnameAndDomain(pod, "cluster.local"); name != strings.Repeat("a", 62) || domain != "" {
		t.Errorf("%q, %q", name, domain)
	}
	pod.Spec.Hostname, pod.Spec.Subdomain = "h", "s"
	if name, domain := hostnameAndDomain(pod, "cluster.local"); name != "h" || domain != "s.web.svc.cluster.local" {
		t.Errorf("%q, %q", name, domain)
	}
}

func TestSecurityContexts(t *testing.T) {
	yes, no, uid, big := true, false, int64(1000), int64(70000)
	tests := []struct {
		name string
		pod  *corev1.PodSecurityContext
		own  *corev1.SecurityContext
		want string // of the error
		ok   func(runtime.ContainerSpec) bool
	}{
		{"none", nil, nil, "", func(s runtime.ContainerSpec) bool { return s.User.UID == 0 && s.NoNewPrivs && s.Caps == 0xa80425fb }},
		{"own over the pod's", &corev1.PodSecurityContext{RunAsUser: &big}, &corev1.SecurityContext{RunAsUser: &uid}, "", func(s runtime.ContainerSpec) bool { return s.User.UID == 1000 }},
		{"out of range", nil, &corev1.SecurityContext{RunAsUser: &big}, "outside of this lab's range", nil},
		{"root refused", nil, &corev1.SecurityContext{RunAsNonRoot: &yes}, "runAsNonRoot and image will run as root", nil},
		{"capabilities", nil, &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"NET_ADMIN"}}}, "", func(s runtime.ContainerSpec) bool { return s.Caps == 1<<12 }},
		{"no such capability", nil, &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"FLY"}}}, `unknown capability "FLY"`, nil},
		{"escalation", nil, &corev1.SecurityContext{AllowPrivilegeEscalation: &yes, ReadOnlyRootFilesystem: &yes}, "", func(s runtime.ContainerSpec) bool { return !s.NoNewPrivs && s.ReadOnlyRoot }},
		{"no escalation", nil, &corev1.SecurityContext{AllowPrivilegeEscalation: &no}, "", func(s runtime.ContainerSpec) bool { return s.NoNewPrivs }},
	}
	for _, tt := range tests {
		var got runtime.ContainerSpec
		pod := &corev1.Pod{Spec: corev1.PodSpec{SecurityContext: tt.pod}}
		err := secure(&got, pod, &corev1.Container{SecurityContext: tt.own}, image.Image{})
		switch {
		case tt.want != "":
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: error %v, want %s", tt.name, err, tt.want)
			}
		case err != nil || !tt.ok(got):
			t.Errorf("%s: %+v, %v", tt.name, got, err)
		}
	}
}

// pureWorker is a worker without a kernel below it.
func pureWorker(spec corev1.PodSpec) (*worker, *corev1.Pod, *clocktesting.FakeClock, *record.FakeRecorder) {
	clock := clocktesting.NewFakeClock(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	recorder := record.NewFakeRecorder(100)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", UID: "u"}, Spec: spec}
	w := &worker{
		k:   &Kubelet{cfg: Config{Clock: clock, Backoff: defaultBackoff}, node: lab.DefaultLab().Spec.Nodes[0], recorder: recorder},
		pod: pod, born: clock.Now(), wake: make(chan struct{}, 1), containers: newContainers(pod),
	}
	return w, pod, clock, recorder
}

// crash lets a container run for a while and fail.
func crash(w *worker, c *container, clock *clocktesting.FakeClock, ran time.Duration) {
	start := metav1.NewTime(clock.Now())
	clock.Step(ran)
	c.started = true
	c.state = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1, StartedAt: start, FinishedAt: metav1.NewTime(clock.Now())}}
}

// A container that fails is restarted at once, then after 10, 20, … seconds, at
// most five minutes; ten good minutes clear the record.
func TestCrashLoopDelays(t *testing.T) {
	w, pod, clock, recorder := pureWorker(corev1.PodSpec{RestartPolicy: corev1.RestartPolicyAlways, Containers: []corev1.Container{{Name: "a"}}})
	c := w.containers[0]
	for i, want := range []time.Duration{0, 10, 20, 40, 80, 160, 300, 300} {
		want *= time.Second
		crash(w, c, clock, time.Second)
		ended := clock.Now()
		w.backOff(pod, c, c.state.Terminated)
		got := max(0, c.restart.notBefore.Sub(ended))
		if got != want {
			t.Errorf("crash %d: delay %v, want %v", i+1, got, want)
		}
		if want == 0 {
			continue
		}
		if s := c.state.Waiting; s == nil || s.Reason != reasonCrashLoop || s.Message != "back-off "+want.String()+" restarting failed container=a pod=p_default(u)" {
			t.Errorf("crash %d: state %+v", i+1, c.state)
		}
		if e := <-recorder.Events; e != "Warning BackOff Back-off restarting failed container a in pod p_default(u)" {
			t.Errorf("event %q", e)
		}
		clock.SetTime(c.restart.notBefore)
	}
	crash(w, c, clock, 11*time.Minute)
	if w.backOff(pod, c, c.state.Terminated); c.restart.notBefore.After(clock.Now()) {
		t.Errorf("after ten good minutes: delay %v", c.restart.notBefore.Sub(clock.Now()))
	}
}

func TestPhaseAndConditions(t *testing.T) {
	at := metav1.NewTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: at}}
	ended := func(code int32) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, FinishedAt: at}}
	}
	waiting := corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reasonCreating}}
	tests := []struct {
		name   string
		policy corev1.RestartPolicy
		init   []corev1.ContainerState
		main   []corev1.ContainerState
		phase  corev1.PodPhase
		ready  string // of the condition Ready: status and reason
	}{
		{"new", "Always", nil, []corev1.ContainerState{waiting}, corev1.PodPending, "False ContainersNotReady"},
		{"running", "Always", nil, []corev1.ContainerState{running, running}, corev1.PodRunning, "True "},
		{"one waits", "Always", nil, []corev1.ContainerState{running, waiting}, corev1.PodPending, "False ContainersNotReady"},
		{"one crashed", "Always", nil, []corev1.ContainerState{running, ended(1)}, corev1.PodRunning, "False ContainersNotReady"},
		{"all ended, to be restarted", "Always", nil, []corev1.ContainerState{ended(0)}, corev1.PodRunning, "False ContainersNotReady"},
		{"succeeded", "Never", nil, []corev1.ContainerState{ended(0), ended(0)}, corev1.PodSucceeded, "False PodCompleted"},
		{"failed", "Never", nil, []corev1.ContainerState{ended(0), ended(2)}, corev1.PodFailed, "False PodFailed"},
		{"failed, to be restarted", "OnFailure", nil, []corev1.ContainerState{ended(2)}, corev1.PodRunning, "False ContainersNotReady"},
		{"init runs", "Always", []corev1.ContainerState{running}, []corev1.ContainerState{waiting}, corev1.PodPending, "False ContainersNotReady"},
		{"init failed", "Never", []corev1.ContainerState{ended(1)}, []corev1.ContainerState{waiting}, corev1.PodFailed, "False PodFailed"},
		{"init failed, to be restarted", "Always", []corev1.ContainerState{ended(1)}, []corev1.ContainerState{waiting}, corev1.PodPending, "False ContainersNotReady"},
		{"init done", "Always", []corev1.ContainerState{ended(0)}, []corev1.ContainerState{running}, corev1.PodRunning, "True "},
	}
	for _, tt := range tests {
		spec := corev1.PodSpec{RestartPolicy: tt.policy}
		for i := range tt.init {
			spec.InitContainers = append(spec.InitContainers, corev1.Container{Name: "i" + string(rune('0'+i))})
		}
		for i := range tt.main {
			spec.Containers = append(spec.Containers, corev1.Container{Name: "c" + string(rune('0'+i))})
		}
		w, pod, _, _ := pureWorker(spec)
		for i, s := range slices.Concat(tt.init, tt.main) {
			w.containers[i].state = s
		}
		got := w.status(pod)
		if got.Phase != tt.phase {
			t.Errorf("%s: phase %s, want %s", tt.name, got.Phase, tt.phase)
		}
		for _, c := range got.Conditions {
			if c.Type == corev1.PodReady && string(c.Status)+" "+c.Reason != tt.ready {
				t.Errorf("%s: Ready is %s %s, want %s", tt.name, c.Status, c.Reason, tt.ready)
			}
		}
		if got.HostIP != "192.168.1.10" || len(got.HostIPs) != 2 {
			t.Errorf("%s: host %s, %v", tt.name, got.HostIP, got.HostIPs)
		}
	}
}

// After the agent has died, what ran has ended as on a node that was off.
func TestRestartedAgentCountsOn(t *testing.T) {
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a"}, {Name: "b"}}}, Status: corev1.PodStatus{
		ContainerStatuses: []corev1.ContainerStatus{{
			Name: "a", RestartCount: 2, ContainerID: "podlab://x", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}},
		}},
	}}
	all := newContainers(pod)
	a, b := all[0].status(), all[1].status()
	if last := a.LastTerminationState.Terminated; a.RestartCount != 3 || last == nil || last.ExitCode != 255 || last.Reason != "Unknown" || last.ContainerID != "podlab://x" {
		t.Errorf("a container that ran: %+v", a)
	}
	if b.RestartCount != 0 || b.LastTerminationState.Terminated != nil || b.State.Waiting == nil {
		t.Errorf("a container that did not: %+v", b)
	}
}

func TestGracePeriod(t *testing.T) {
	five, zero := int64(5), int64(0)
	pod := &corev1.Pod{}
	if got := gracePeriod(pod, false); got != 30*time.Second {
		t.Errorf("default %v", got)
	}
	pod.Spec.TerminationGracePeriodSeconds = &five
	if got := gracePeriod(pod, false); got != 5*time.Second {
		t.Errorf("the pod's own %v", got)
	}
	pod.DeletionGracePeriodSeconds = &zero
	if got := gracePeriod(pod, false); got != 0 {
		t.Errorf("the deletion's %v", got)
	}
	if got := gracePeriod(&corev1.Pod{}, true); got != 0 {
		t.Errorf("of a pod that is gone %v", got)
	}
}
