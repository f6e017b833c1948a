package kubelet_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"sigs.k8s.io/yaml"

	"podlab/lab"
	"podlab/lab/image"
	"podlab/lab/kube"
	"podlab/lab/kubelet"
	"podlab/lab/netns"
	"podlab/lab/network"
	"podlab/lab/observe"
	"podlab/lab/runtime"
	"podlab/lab/runtime/runtimetest"
)

func TestMain(m *testing.M) { runtimetest.Main(m) }

// cluster is the default lab without its agent: API, network, runtime, kubelets.
//
//	    underlay
//	   /        \
//	node1      node2
type cluster struct {
	t        testing.TB
	api      corev1client.CoreV1Interface
	runtime  *runtime.Runtime
	network  *network.Network
	kubelets *kubelet.Kubelets

	mu    sync.Mutex
	steps []lab.StepEvent

	stepped chan struct{} // holds one token after each step
}

// newCluster starts a cluster; back-offs are short, so that a crash loop is
// over within a second.
func newCluster(t testing.TB) *cluster {
	t.Helper()
	c := &cluster{t: t, stepped: make(chan struct{}, 1)}
	l := lab.DefaultLab()
	root := runtimetest.Rootfs(t)
	underlay, err := netns.New(nil)
	must(t, err)
	t.Cleanup(func() { underlay.Close() })
	c.network, err = network.New(network.Config{Spec: l.Spec, Underlay: underlay, Log: observe.NewLog(l.Spec, time.Now), Warm: 2})
	must(t, err)
	t.Cleanup(func() {
		if err := c.network.Close(); err != nil {
			t.Error(err)
		}
	})
	must(t, c.network.Start(t.Context()))
	c.runtime, err = runtime.Start(runtime.Options{Root: root, Scratch: runtimetest.Scratch(t), Hidden: []string{runtimetest.Hidden}})
	must(t, err)
	t.Cleanup(func() {
		if err := c.runtime.Close(); err != nil {
			t.Error(err)
		}
	})
	api, err := kube.New(kube.Config{})
	must(t, err)
	t.Cleanup(func() {
		if err := api.Close(); err != nil {
			t.Error(err)
		}
	})
	c.api = api.Core()
	images, err := image.Default()
	must(t, err)
	c.kubelets, err = kubelet.Start(t.Context(), kubelet.Config{
		Spec: l.Spec, Client: c.api, Runtime: c.runtime, Network: kubelet.LabNetwork{Network: c.network}, Images: images,
		ImagesDir: runtimetest.Images(t), Version: "test", Steps: c.step,
		Backoff: kubelet.Backoff{Base: 100 * time.Millisecond, Max: 10 * time.Second},
	})
	must(t, err)
	t.Cleanup(c.kubelets.Stop)
	return c
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) step(e lab.StepEvent) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.steps = append(c.steps, e)
	select {
	case c.stepped <- struct{}{}:
	default:
	}
}

// numbers waits for the last step of a course of a pod and returns all, as
// they came.
func (c *cluster) numbers(pod, course string) []int {
	c.t.Helper()
	timeout := time.NewTimer(10 * time.Second)
	defer timeout.Stop()
	for {
		c.mu.Lock()
		var out []int
		for _, s := range c.steps {
			if s.Pod == pod && s.Course == course {
				out = append(out, s.Number)
				if s.Error != "" {
					c.t.Errorf("step %d of %s: %s", s.Number, pod, s.Error)
				}
			}
		}
		c.mu.Unlock()
		if slices.Contains(out, 8) {
			return out
		}
		select {
		case <-c.stepped:
		case <-timeout.C:
			return out
		}
	}
}

// apply creates a pod from YAML, on node1 unless it says otherwise.
func (c *cluster) apply(text string) *corev1.Pod {
	c.t.Helper()
	var pod corev1.Pod
	must(c.t, yaml.UnmarshalStrict([]byte(text), &pod))
	if pod.Spec.NodeName == "" {
		pod.Spec.NodeName = "node1"
	}
	if pod.Spec.TerminationGracePeriodSeconds == nil {
		one := int64(1)
		pod.Spec.TerminationGracePeriodSeconds = &one
	}
	made, err := c.api.Pods("default").Create(c.t.Context(), &pod, metav1.CreateOptions{})
	must(c.t, err)
	return made
}

// until watches a pod until ok says so; a pod that is gone is nil.
func (c *cluster) until(name, what string, ok func(*corev1.Pod) bool) *corev1.Pod {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 20*time.Second)
	defer cancel()
	selector := fields.OneTermEqualSelector("metadata.name", name).String()
	list, err := c.api.Pods("default").List(ctx, metav1.ListOptions{FieldSelector: selector})
	must(c.t, err)
	var last *corev1.Pod
	if len(list.Items) > 0 {
		last = &list.Items[0]
	}
	if ok(last) {
		return last
	}
	w, err := c.api.Pods("default").Watch(ctx, metav1.ListOptions{FieldSelector: selector, ResourceVersion: list.ResourceVersion})
	must(c.t, err)
	defer w.Stop()
	for e := range w.ResultChan() {
		pod, isPod := e.Object.(*corev1.Pod)
		if !isPod {
			c.t.Fatalf("watch of %s: %v", name, e.Object)
		}
		last = pod
		if e.Type == "DELETED" {
			pod = nil
		}
		if ok(pod) {
			return pod
		}
	}
	text, _ := yaml.Marshal(last)
	c.t.Fatalf("pod %s: not %s in 20 s\n%s\n%v", name, what, text, c.events(name))
	return nil
}

func ready(p *corev1.Pod) bool {
	if p == nil {
		return false
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func (c *cluster) delete(name string) {
	c.t.Helper()
	must(c.t, c.api.Pods("default").Delete(c.t.Context(), name, metav1.DeleteOptions{}))
}

func (c *cluster) gone(name string) {
	c.t.Helper()
	c.until(name, "gone", func(p *corev1.Pod) bool { return p == nil })
}

// events are the reasons of a pod's events.
func (c *cluster) events(name string) []string {
	list, err := c.api.Events("default").List(c.t.Context(), metav1.ListOptions{})
	must(c.t, err)
	var out []string
	for _, e := range list.Items {
		if e.InvolvedObject.Name == name {
			out = append(out, e.Reason+": "+e.Message)
		}
	}
	return out
}

// event waits for an event of a pod.
func (c *cluster) event(name, want string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 10*time.Second)
	defer cancel()
	w, err := c.api.Events("default").Watch(ctx, metav1.ListOptions{ResourceVersion: "0"})
	must(c.t, err)
	defer w.Stop()
	for e := range w.ResultChan() {
		if ev, ok := e.Object.(*corev1.Event); ok && ev.InvolvedObject.Name == name && strings.Contains(ev.Reason+": "+ev.Message, want) {
			return
		}
	}
	c.t.Errorf("pod %s has no event %q; it has\n%s", name, want, strings.Join(c.events(name), "\n"))
}

// run runs a command in a container and returns what it prints.
func (c *cluster) run(pod, container string, args ...string) string {
	c.t.Helper()
	var out locked
	err := c.kubelets.Exec(c.t.Context(), types.NamespacedName{Namespace: "default", Name: pod}, container, args, nil, &out, &out, false, nil)
	if err != nil {
		c.t.Errorf("%s: %v: %s", strings.Join(args, " "), err, out.String())
	}
	return out.String()
}

// locked takes both streams of a command.
type locked struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *locked) Close() error { return nil }

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (c *cluster) logs(pod, container string, opts corev1.PodLogOptions) string {
	c.t.Helper()
	var out bytes.Buffer
	if err := c.kubelets.Logs(c.t.Context(), types.NamespacedName{Namespace: "default", Name: pod}, container, &opts, &out); err != nil {
		c.t.Error(err)
	}
	return out.String()
}

// The course's own manifest.
const multi = `
apiVersion: v1
kind: Pod
metadata:
  name: multi-container-pod
spec:
  containers:
  - name: web-server
    image: nginx
    ports:
    - containerPort: 80
  - name: log-collector
    image: fluentd
    ports:
    - containerPort: 24224
  - name: metrics-exporter
    image: prometheus/node-exporter
    ports:
    - containerPort: 9100
`

func TestPrivilegedCoursePod(t *testing.T) {
	c := newCluster(t)
	c.apply(multi)
	pod := c.until("multi-container-pod", "ready", ready)
	if len(pod.Status.PodIPs) != 2 || pod.Status.PodIP != pod.Status.PodIPs[0].IP {
		t.Errorf("podIPs %v", pod.Status.PodIPs)
	}
	if got, want := c.numbers("default/multi-container-pod", "create"), []int{2, 3, 4, 5, 6, 7, 8}; !slices.Equal(got, want) {
		t.Errorf("steps of creation %v, want %v", got, want)
	}
	inodes := map[string]bool{}
	for _, name := range []string{"web-server", "log-collector", "metrics-exporter"} {
		inodes[c.run("multi-container-pod", name, "readlink", "/proc/self/ns/net")] = true
	}
	if len(inodes) != 1 {
		t.Errorf("network namespaces %v, want one", inodes)
	}
	// Each speaks its protocol, from another container of the pod.
	curl := []string{"curl", "-sS", "--retry", "20", "--retry-delay", "0", "--retry-connrefused", "--retry-max-time", "10"}
	if got := c.run("multi-container-pod", "log-collector", append(curl, "http://127.0.0.1")...); !strings.Contains(got, "Welcome to nginx!") {
		t.Errorf("nginx: %s", got)
	}
	if got := c.run("multi-container-pod", "web-server", append(curl, "http://"+pod.Status.PodIP+":9100/metrics")...); !strings.Contains(got, "node_cpu_seconds_total") {
		t.Errorf("node exporter: %.200s", got)
	}
	c.run("multi-container-pod", "web-server", "bash", "-c", `printf '\x93\xa3app\x01\x81\xa1a\xa1b' >/dev/tcp/127.0.0.1/24224`)
	follow, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	seen := &stopAt{want: `app: {"a":"b"}`, stop: cancel}
	must(t, c.kubelets.Logs(follow, types.NamespacedName{Namespace: "default", Name: "multi-container-pod"}, "log-collector", &corev1.PodLogOptions{Follow: true}, seen))
	if !seen.found() {
		t.Errorf("fluentd printed\n%s", seen.all.String())
	}
	if got := c.logs("multi-container-pod", "web-server", corev1.PodLogOptions{}); !strings.Contains(got, `"GET / HTTP/1.1" 200`) {
		t.Errorf("nginx's log\n%s", got)
	}
	c.delete("multi-container-pod")
	c.gone("multi-container-pod")
	if got, want := c.numbers("default/multi-container-pod", "terminate"), []int{1, 2, 3, 4, 5, 6, 7, 8}; !slices.Equal(got, want) {
		t.Errorf("steps of termination %v, want %v", got, want)
	}
}

// stopAt collects what is written and calls stop once it contains want.
type stopAt struct {
	want string
	stop func()
	all  bytes.Buffer
}

func (s *stopAt) found() bool { return strings.Contains(s.all.String(), s.want) }

func (s *stopAt) Write(b []byte) (int, error) {
	s.all.Write(b)
	if s.found() {
		s.stop()
	}
	return len(b), nil
}

func TestPrivilegedPortConflictIsACrashLoop(t *testing.T) {
	c := newCluster(t)
	c.apply(`
metadata: {name: two-webs}
spec:
  containers:
  - {name: a, image: "nginx:1.29"}
  - {name: b, image: "nginx:1.29"}
`)
	pod := c.until("two-webs", "in a crash loop", func(p *corev1.Pod) bool {
		for _, s := range p.Status.ContainerStatuses {
			if w := s.State.Waiting; w != nil && w.Reason == "CrashLoopBackOff" && s.RestartCount >= 1 {
				return true
			}
		}
		return false
	})
	if pod.Status.Phase != corev1.PodRunning {
		t.Errorf("phase %s", pod.Status.Phase)
	}
	loser := ""
	for _, s := range pod.Status.ContainerStatuses {
		if s.State.Waiting == nil {
			continue
		}
		loser = s.Name
		if last := s.LastTerminationState.Terminated; last == nil || last.ExitCode != 1 || last.Reason != "Error" {
			t.Errorf("last state %+v", s.LastTerminationState)
		}
	}
	for _, previous := range []bool{false, true} {
		if got := c.logs("two-webs", loser, corev1.PodLogOptions{Previous: previous}); !strings.Contains(got, "bind() to 0.0.0.0:80 failed (98: Address already in use)") && !strings.Contains(got, "(98:") {
			t.Errorf("log (previous %v):\n%s", previous, got)
		}
	}
	c.event("two-webs", "BackOff: Back-off restarting failed container "+loser)
}

func TestPrivilegedUnknownImage(t *testing.T) {
	c := newCluster(t)
	c.apply("metadata: {name: odd}\nspec: {containers: [{name: a, image: 'redis:7'}]}\n")
	for _, reason := range []string{"ErrImagePull", "ImagePullBackOff"} {
		c.until("odd", reason, func(p *corev1.Pod) bool {
			return len(p.Status.ContainerStatuses) > 0 && p.Status.ContainerStatuses[0].State.Waiting != nil &&
				p.Status.ContainerStatuses[0].State.Waiting.Reason == reason
		})
	}
	c.event("odd", `Failed: Failed to pull image "redis:7": there is no image "redis" in this lab; there are: `)
	c.event("odd", "BackOff: Back-off pulling image")
	c.delete("odd")
	c.gone("odd")
}

func TestPrivilegedGracePeriod(t *testing.T) {
	c := newCluster(t)
	c.apply(`
metadata: {name: polite}
spec:
  terminationGracePeriodSeconds: 600
  containers: [{name: a, image: debian, command: [sh, -c, "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done"]}]
`)
	c.apply(`
metadata: {name: stubborn}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: a, image: debian, command: [sh, -c, "trap '' TERM; echo up; while :; do sleep 1000; done"]}]
`)
	for _, name := range []string{"polite", "stubborn"} {
		c.until(name, "ready", ready)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		up := &stopAt{want: "up", stop: cancel}
		must(t, c.kubelets.Logs(ctx, types.NamespacedName{Namespace: "default", Name: name}, "a", &corev1.PodLogOptions{Follow: true}, up))
		cancel()
	}
	start := time.Now()
	c.delete("polite")
	c.delete("stubborn")
	c.gone("polite")
	c.gone("stubborn")
	if took := time.Since(start); took < time.Second || took > 15*time.Second {
		t.Errorf("took %v; the stubborn one has a second", took)
	}
	details := map[string]string{}
	for _, s := range c.steps {
		if s.Course == "terminate" && s.Number == 2 {
			details[s.Pod] = s.Detail
		}
	}
	if !strings.Contains(details["default/polite"], "themselves") || !strings.Contains(details["default/stubborn"], "SIGKILL") {
		t.Errorf("details %v", details)
	}
}

func TestPrivilegedForcedDeletion(t *testing.T) {
	c := newCluster(t)
	manifest := "metadata: {name: p}\nspec: {terminationGracePeriodSeconds: 600, containers: [{name: a, image: debian, command: [sleep, infinity]}]}\n"
	first := c.apply(manifest)
	c.until("p", "ready", ready)
	zero := int64(0)
	must(t, c.api.Pods("default").Delete(t.Context(), "p", metav1.DeleteOptions{GracePeriodSeconds: &zero}))
	second := c.apply(manifest) // the name is free at once
	got := c.until("p", "ready", ready)
	if got.UID != second.UID || got.UID == first.UID {
		t.Errorf("UID %s, want %s", got.UID, second.UID)
	}
	c.run("p", "a", "true")
}

func TestPrivilegedEnvironmentAndVolumes(t *testing.T) {
	c := newCluster(t)
	ctx := t.Context()
	_, err := c.api.ConfigMaps("default").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "cfg"}, Data: map[string]string{"PORT": "8081", "app.conf": "x=1\n"}}, metav1.CreateOptions{})
	must(t, err)
	_, err = c.api.Secrets("default").Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "sec"}, Data: map[string][]byte{"key": []byte("s3cret")}}, metav1.CreateOptions{})
	must(t, err)
	c.apply(`
metadata: {name: env, labels: {tier: front}}
spec:
  hostname: web
  subdomain: sub
  volumes:
  - {name: cfg, configMap: {name: cfg, items: [{key: app.conf, path: etc/app.conf}]}}
  - {name: sec, secret: {secretName: sec, defaultMode: 0400}}
  - {name: shared, emptyDir: {}}
  - {name: info, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
  initContainers:
  - {name: init, image: busybox, command: [sh, -c, "echo from-init > /data/file"], volumeMounts: [{name: shared, mountPath: /data}]}
  containers:
  - name: a
    image: debian
    command: [sh, -c, "echo '$(PORT) $(GREETING) $$(PORT) $(NONE)'; env | sort; sleep infinity"]
    envFrom: [{configMapRef: {name: cfg}}]
    env:
    - {name: GREETING, value: "hi $(PORT)"}
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: TIER, valueFrom: {fieldRef: {fieldPath: "metadata.labels['tier']"}}}
    - {name: KEY, valueFrom: {secretKeyRef: {name: sec, key: key}}}
    volumeMounts:
    - {name: cfg, mountPath: /cfg}
    - {name: sec, mountPath: /sec}
    - {name: shared, mountPath: /data/sub, subPath: deep/er}
    - {name: shared, mountPath: /all}
    - {name: info, mountPath: /info}
  - {name: b, image: debian, command: [sleep, infinity], volumeMounts: [{name: shared, mountPath: /all, readOnly: true}]}
`)
	pod := c.until("env", "ready", ready)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	seen := &stopAt{want: "TIER=front", stop: cancel}
	must(t, c.kubelets.Logs(ctx, types.NamespacedName{Namespace: "default", Name: "env"}, "a", &corev1.PodLogOptions{Follow: true}, seen))
	for _, want := range []string{"8081 hi 8081 $(PORT) $(NONE)\n", "NODE=node1\n", "IP=" + pod.Status.PodIP + "\n", "KEY=s3cret\n", "HOSTNAME=web\n", "HOME=/root\n"} {
		if !strings.Contains(seen.all.String(), want) {
			t.Errorf("no %q in\n%s", want, seen.all.String())
		}
	}
	for cmd, want := range map[string]string{
		"cat /all/file /cfg/etc/app.conf /sec/key":             "from-init\nx=1\ns3cret",
		"stat -c %a /sec/key":                                  "400\n",
		"cat /info/labels":                                     `tier="front"`,
		"echo x > /data/sub/f; cat /all/deep/er/f":             "x\n",
		"touch /cfg/x 2>&1; true":                              "Read-only file system",
		"hostname; cat /etc/hostname":                          "web\nweb\n",
		"grep -c web.sub.default.svc.cluster.local /etc/hosts": "2\n",
		"cat /etc/resolv.conf":                                 "search default.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n",
	} {
		if got := c.run("env", "a", "sh", "-c", cmd); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", cmd, got, want)
		}
	}
	if got := c.run("env", "b", "sh", "-c", "cat /all/deep/er/f; touch /all/x 2>&1; true"); !strings.Contains(got, "x\n") || !strings.Contains(got, "Read-only") {
		t.Errorf("second container: %q", got)
	}
}

func TestPrivilegedRestartPolicies(t *testing.T) {
	c := newCluster(t)
	for i, tt := range []struct {
		policy, script string
		phase          corev1.PodPhase
	}{{"Never", "exit 0", corev1.PodSucceeded}, {"Never", "exit 3", corev1.PodFailed}, {"OnFailure", "exit 0", corev1.PodSucceeded}} {
		name := fmt.Sprintf("job-%d", i)
		c.apply(fmt.Sprintf("metadata: {name: %s}\nspec: {restartPolicy: %s, containers: [{name: a, image: busybox, command: [sh, -c, 'echo done; %s']}]}\n", name, tt.policy, tt.script))
		pod := c.until(name, string(tt.phase), func(p *corev1.Pod) bool { return p.Status.Phase == tt.phase })
		if s := pod.Status.ContainerStatuses[0]; s.State.Terminated == nil || s.RestartCount != 0 {
			t.Errorf("%s: %+v", name, s)
		}
		if got := c.logs(name, "a", corev1.PodLogOptions{}); got != "done\n" {
			t.Errorf("%s: log %q", name, got)
		}
	}
	// A missing program counts as a run that failed.
	c.apply("metadata: {name: typo}\nspec: {containers: [{name: a, image: busybox, command: [slep]}]}\n")
	c.until("typo", "in a crash loop", func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses
		return len(s) == 1 && s[0].LastTerminationState.Terminated != nil && s[0].LastTerminationState.Terminated.Reason == "StartError" && s[0].RestartCount > 0
	})
}

func TestPrivilegedSharedNamespaces(t *testing.T) {
	c := newCluster(t)
	c.apply(`
metadata: {name: shared}
spec:
  shareProcessNamespace: true
  containers:
  - {name: a, image: debian, command: [sleep, "1111"]}
  - {name: b, image: debian, command: [sleep, "2222"]}
`)
	c.apply("metadata: {name: apart}\nspec: {containers: [{name: a, image: debian, command: [sleep, '1111']}, {name: b, image: debian, command: [sleep, '2222']}]}\n")
	c.apply("metadata: {name: hostnet}\nspec: {hostNetwork: true, containers: [{name: a, image: debian, command: [sleep, '3333']}]}\n")
	for _, name := range []string{"shared", "apart", "hostnet"} {
		c.until(name, "ready", ready)
	}
	if got := c.run("shared", "a", "ps", "-eo", "args"); !strings.Contains(got, "sleep 2222") || !strings.Contains(got, "/pause") {
		t.Errorf("shared: ps in a\n%s", got)
	}
	if got := c.run("apart", "a", "ps", "-eo", "args"); strings.Contains(got, "sleep 2222") {
		t.Errorf("apart: ps in a\n%s", got)
	}
	ipc := map[string]bool{}
	for _, name := range []string{"a", "b"} {
		ipc[c.run("apart", name, "readlink", "/proc/self/ns/ipc")] = true
	}
	if len(ipc) != 1 {
		t.Errorf("ipc namespaces %v", ipc)
	}
	if got := c.run("hostnet", "a", "ip", "-br", "addr"); !strings.Contains(got, "192.168.1.10") {
		t.Errorf("hostNetwork: %s", got)
	}
}
