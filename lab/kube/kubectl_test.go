package kube

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

// kubectlBinary is PODLAB_KUBECTL, or is built from go.mod's Kubernetes once.
var kubectlBinary = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("PODLAB_KUBECTL"); path != "" {
		return path, nil
	}
	dir, err := os.MkdirTemp("", "podlab-kubectl")
	if err != nil {
		return "", err
	}
	out := filepath.Join(dir, "kubectl")
	if msg, err := exec.Command("../../scripts/kubectl", out).CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot build kubectl: %w: %s", err, msg)
	}
	return out, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := kubectlBinary(); err == nil && os.Getenv("PODLAB_KUBECTL") == "" {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// site is the API on a loopback port under /labs/x/kube/, as a learner's
// kubectl reaches it.
type site struct {
	*Server
	runtime *fakeRuntime
	kubectl string
	config  string
}

func newSite(t *testing.T) *site {
	t.Helper()
	bin, err := kubectlBinary()
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(t)
	rt := &fakeRuntime{sizes: make(chan remotecommand.TerminalSize, 8), more: make(chan string)}
	s.SetRuntime(rt)
	mux := http.NewServeMux()
	mux.Handle("/labs/x/kube/", http.StripPrefix("/labs/x/kube", s.Handler()))
	web := httptest.NewServer(mux)
	t.Cleanup(web.Close)
	config := filepath.Join(t.TempDir(), "config")
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: lab, cluster: {server: %s/labs/x/kube}}]
contexts: [{name: lab, context: {cluster: lab, user: learner}}]
users: [{name: learner, user: {token: t}}]
current-context: lab
`, web.URL)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return &site{Server: s, runtime: rt, kubectl: bin, config: config}
}

func (s *site) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, s.kubectl, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+s.config, "HOME="+filepath.Dir(s.config), "KUBECACHEDIR="+filepath.Join(filepath.Dir(s.config), "cache"))
	return cmd
}

// run runs kubectl with input and returns what it printed, both streams.
func (s *site) run(t *testing.T, input string, args ...string) (string, error) {
	t.Helper()
	cmd := s.command(t.Context(), args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// must runs kubectl and fails the test unless it succeeds and prints want.
func (s *site) must(t *testing.T, input, want string, args ...string) string {
	t.Helper()
	out, err := s.run(t, input, args...)
	if err != nil || !strings.Contains(out, want) {
		t.Errorf("kubectl %s: %v\n%s\nwant: %s", strings.Join(args, " "), err, out, want)
	}
	return out
}

// refused runs kubectl and fails the test unless it fails with want.
func (s *site) refused(t *testing.T, input, want string, args ...string) {
	t.Helper()
	out, err := s.run(t, input, args...)
	if err == nil || !strings.Contains(out, want) {
		t.Errorf("kubectl %s: %v\n got: %s\nwant: %s", strings.Join(args, " "), err, out, want)
	}
}

// runningPod makes a pod that its kubelet calls running.
func (s *site) runningPod(t *testing.T, name string, containers ...string) {
	t.Helper()
	pods := s.Core().Pods("default")
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{NodeName: "node1"}}
	for _, c := range containers {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: c, Image: "nginx"})
	}
	p, err := pods.Create(t.Context(), p, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p.Status.Phase, p.Status.PodIP = corev1.PodRunning, "10.244.1.10"
	p.Status.PodIPs = []corev1.PodIP{{IP: "10.244.1.10"}}
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	for _, c := range containers {
		p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{
			Name: c, Ready: true, Image: "nginx", ContainerID: "podlab://1",
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}},
		})
	}
	if _, err := pods.UpdateStatus(t.Context(), p, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// fakeRuntime is a container with a shell of four commands.
type fakeRuntime struct {
	sizes chan remotecommand.TerminalSize
	more  chan string // lines that follow in the log

	mu      sync.Mutex
	logOpts *corev1.PodLogOptions
	ended   int // calls of Logs that have returned
}

func (f *fakeRuntime) Exec(ctx context.Context, pod types.NamespacedName, container string, cmd []string,
	in io.Reader, out, stderr io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	switch cmd[0] {
	case "whereami":
		_, err := fmt.Fprintf(out, "%s/%s %v", pod, container, tty)
		return err
	case "cat":
		_, err := io.Copy(out, in)
		return err
	case "size":
		if _, err := fmt.Fprintln(out, "ready"); err != nil {
			return err
		}
		for {
			select {
			case sz, ok := <-resize:
				if !ok {
					return nil
				}
				f.sizes <- sz
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	case "fail":
		if _, err := fmt.Fprintln(stderr, "no luck"); err != nil {
			return err
		}
		return utilexec.CodeExitError{Err: errors.New("command terminated with exit code 3"), Code: 3}
	}
	return fmt.Errorf("exec: %q: executable file not found in $PATH", cmd[0])
}

func (f *fakeRuntime) Attach(_ context.Context, pod types.NamespacedName, _ string,
	in io.Reader, out, _ io.WriteCloser, _ bool, _ <-chan remotecommand.TerminalSize) error {
	if _, err := fmt.Fprintf(out, "attached to %s\n", pod); err != nil {
		return err
	}
	if in != nil {
		_, err := io.Copy(out, in)
		return err
	}
	return nil
}

func (f *fakeRuntime) PortForward(_ context.Context, _ types.NamespacedName, port int32, stream io.ReadWriteCloser) error {
	line, err := bufio.NewReader(stream).ReadString('\n')
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stream, "%d says %s", port, line)
	return err
}

func (f *fakeRuntime) Logs(ctx context.Context, _ types.NamespacedName, container string, opts *corev1.PodLogOptions, out io.Writer) error {
	f.mu.Lock()
	f.logOpts = opts
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.ended++
	}()
	if _, err := fmt.Fprintf(out, "first line of %s\n", container); err != nil || !opts.Follow {
		return err
	}
	for {
		select {
		case line, ok := <-f.more:
			if !ok {
				return nil
			}
			if _, err := fmt.Fprintln(out, line); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func TestKubectlObjects(t *testing.T) {
	s := newSite(t)
	s.must(t, "", "Server Version: v1.37.2+podlab", "version")
	s.must(t, twoContainers, "pod/web created", "apply", "-f", "-")
	s.must(t, twoContainers, "pod/web unchanged", "apply", "-f", "-")
	s.must(t, strings.Replace(twoContainers, "app: web", "app: web, tier: front", 1), "pod/web configured", "apply", "-f", "-")
	s.must(t, twoContainers, "pod/web serverside-applied", "apply", "--server-side", "-f", "-")
	s.must(t, strings.Replace(twoContainers, "name: web", "name: dry", 1), "pod/dry created (server dry run)", "apply", "--dry-run=server", "-f", "-")
	s.must(t, strings.Replace(twoContainers, "tier: front", "tier: back", 1), "", "diff", "-f", "-")
	s.must(t, "", "pod/web labeled", "label", "pod", "web", "a=b")
	s.must(t, "", "pod/web annotated", "annotate", "pod", "web", "x=y")
	s.must(t, "", "pod/web patched", "patch", "pod", "web", "-p", `{"metadata":{"labels":{"c":"d"}}}`)
	s.must(t, "", "pod/web patched", "patch", "pod", "web", "--type=json", "-p", `[{"op":"remove","path":"/metadata/labels/c"}]`)
	s.must(t, "", "a=b", "get", "pod", "web", "--show-labels")
	out := s.must(t, "", "NAME   READY   STATUS    RESTARTS   AGE", "get", "pods", "-o", "wide")
	if !strings.Contains(out, "web    0/2     Pending   0          ") || !strings.Contains(out, "<none>   <none>   <none>           <none>") {
		t.Errorf("the row is not as kubectl prints it:\n%s", out)
	}
	s.must(t, "", "image: nginx:1.29", "get", "pod", "web", "-o", "yaml")
	s.must(t, "", "web", "get", "pods", "-l", "a=b", "--field-selector", "status.phase=Pending", "-o", "name")
	s.must(t, "", "nginx", "get", "pod", "web", "-o", "jsonpath={.spec.containers[0].name}")
	s.must(t, "", "No resources found", "get", "events")
	s.must(t, "", "Service Account:  default", "describe", "pod", "web")
	s.must(t, "", "yes", "auth", "can-i", "delete", "pods")
	s.must(t, "", "learner", "auth", "whoami")
	s.must(t, "", "containerPort\t<integer> -required-", "explain", "pod.spec.containers.ports")
	s.must(t, "", "discovery.k8s.io/v1        true         EndpointSlice", "api-resources")
	s.must(t, "", "namespace/team created", "create", "ns", "team")
	s.must(t, "", "configmap/c created", "create", "configmap", "c", "--from-literal=k=v", "-n", "team")
	s.must(t, "", "secret/s created", "create", "secret", "generic", "s", "--from-literal=k=v", "-n", "team")
	s.must(t, "", "service/web created", "create", "service", "clusterip", "web", "--tcp=80:80")
	s.must(t, "", "10.", "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
	s.must(t, "", "pod/runs created", "run", "runs", "--image=nginx", "-n", "team")
	s.must(t, "", `namespace "team" deleted`, "delete", "ns", "team")
	s.must(t, "", `pod "web" deleted`, "delete", "pod", "web")
	s.refused(t, "", `Error from server (NotFound): pods "web" not found`, "get", "pod", "web")
}

// TestKubectlEdit changes an object through an editor.
func TestKubectlEdit(t *testing.T) {
	s := newSite(t)
	s.must(t, twoContainers, "created", "apply", "-f", "-")
	cmd := s.command(t.Context(), "edit", "pod", "web")
	cmd.Env = append(cmd.Env, "KUBE_EDITOR=sed -i s/app:.web/app:\\ edited/")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "pod/web edited") {
		t.Errorf("%v: %s", err, out)
	}
	s.must(t, "", "edited", "get", "pod", "web", "-o", "jsonpath={.metadata.labels.app}")
}

// TestKubectlErrors has the words of a real API server.
func TestKubectlErrors(t *testing.T) {
	s := newSite(t)
	replace := func(old, by string) string { return strings.Replace(twoContainers, old, by, 1) }
	s.refused(t, replace("image: busybox", "imagee: busybox"),
		`Error from server (BadRequest): error when creating "STDIN": Pod in version "v1" cannot be handled as a Pod: strict decoding error: unknown field "spec.containers[1].imagee"`, "apply", "-f", "-")
	s.refused(t, replace("containerPort: 80", "containerPort: high"),
		`cannot be handled as a Pod: json: cannot unmarshal string into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32`, "apply", "-f", "-")
	s.refused(t, replace("name: web", "name: Web"),
		`The Pod "Web" is invalid: metadata.name: Invalid value: "Web": a lowercase RFC 1123 subdomain must consist of`, "apply", "-f", "-")
	s.refused(t, replace("name: web", "name: web\n  namespace: nowhere"),
		`Error from server (NotFound): error when creating "STDIN": namespaces "nowhere" not found`, "apply", "-f", "-")
	s.refused(t, replace("kind: Pod", "kind: Pot"), `no matches for kind "Pot" in version "v1"`, "apply", "-f", "-")
	s.refused(t, "", `error: the server doesn't have a resource type "deployments"`, "get", "deployments")
	s.refused(t, "", `namespaces "default" is forbidden: this namespace may not be deleted`, "delete", "ns", "default")
	s.must(t, twoContainers, "created", "create", "-f", "-")
	s.refused(t, twoContainers, `Error from server (AlreadyExists): error when creating "STDIN": pods "web" already exists`, "create", "-f", "-")
	s.refused(t, replace("name: nginx", "name: other"), "pod updates may not add or remove containers", "apply", "-f", "-")
	s.refused(t, replace("name: web", "name: web\n  resourceVersion: \"1\""), "the object has been modified; please apply your changes to the latest version and try again", "replace", "-f", "-")
	s.refused(t, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: big}\ndata: {a: "+strings.Repeat("x", 4<<20)+"}\n",
		"Request entity too large: limit is 3145728", "create", "-f", "-")
}

func TestKubectlWatch(t *testing.T) {
	s := newSite(t)
	cmd := s.command(t.Context(), "get", "pods", "-w", "--output-watch-events")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.runningPod(t, "web", "app")
	zero := int64(0)
	lines := bufio.NewScanner(out)
	var got []string
	for len(got) < 3 && lines.Scan() {
		f := strings.Fields(lines.Text())
		if f[0] == "EVENT" {
			continue
		}
		got = append(got, strings.Join(f[:4], " "))
		if f[3] == "Running" && f[0] != "DELETED" {
			if err := s.Core().Pods("default").Delete(t.Context(), "web", metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil && len(got) < 3 {
				t.Error(err)
			}
		}
	}
	want := regexp.MustCompile(`^ADDED web (0/1 Pending|1/1 Running); ?(MODIFIED web .*)?`)
	if all := strings.Join(got, "; "); !want.MatchString(all) || !strings.Contains(all, "1/1 Running") {
		t.Errorf("got %s", all)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // it was killed
}

func TestKubectlLogs(t *testing.T) {
	s := newSite(t)
	s.runningPod(t, "web", "nginx", "sidecar")
	s.must(t, "", "first line of nginx", "logs", "web")
	s.must(t, "", "first line of sidecar", "logs", "web", "-c", "sidecar", "--tail=5", "--since=1m", "--timestamps", "--limit-bytes=1000")
	s.runtime.mu.Lock()
	if o := s.runtime.logOpts; o.TailLines == nil || *o.TailLines != 5 || o.SinceSeconds == nil || *o.SinceSeconds != 60 || !o.Timestamps || o.LimitBytes == nil {
		t.Errorf("the options came as %+v", o)
	}
	s.runtime.mu.Unlock()
	if out := s.must(t, "", "first", "logs", "web", "--limit-bytes=5"); !strings.HasSuffix(out, "first") {
		t.Errorf("5 bytes were asked for, got %q", out)
	}
	s.refused(t, "", `previous terminated container "nginx" in pod "web" not found`, "logs", "web", "-p")
	s.refused(t, "", `container missing is not valid for pod web`, "logs", "web", "-c", "missing")

	cmd := s.command(t.Context(), "logs", "-f", "web", "-c", "nginx")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for _, want := range []string{"first line of nginx", "two", "three"} {
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("got %q, want %q", lines.Text(), want)
		}
		switch want {
		case "first line of nginx":
			s.runtime.more <- "two"
		case "two":
			s.runtime.more <- "three"
		}
	}
	close(s.runtime.more)
	if err := cmd.Wait(); err != nil {
		t.Errorf("kubectl logs -f must end when the log does: %v", err)
	}
}

func TestKubectlLogsOfWaiting(t *testing.T) {
	s := newSite(t)
	s.must(t, twoContainers, "created", "apply", "-f", "-")
	if out, err := s.run(t, "", "logs", "web"); err != nil || strings.Contains(out, "first") {
		t.Errorf("a pod without a node has no log: %v, %s", err, out)
	}
	p, err := s.Core().Pods("default").Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "waits"},
		Spec:       corev1.PodSpec{NodeName: "node1", Containers: []corev1.Container{{Name: "app", Image: "nope"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for reason, want := range map[string]string{
		"ContainerCreating": `container "app" in pod "waits" is waiting to start: ContainerCreating`,
		"ErrImagePull":      `container "app" in pod "waits" is waiting to start: image can't be pulled`,
		"ImagePullBackOff":  `container "app" in pod "waits" is waiting to start: trying and failing to pull image`,
	} {
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}}}
		if p, err = s.Core().Pods("default").UpdateStatus(t.Context(), p, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		s.refused(t, "", want, "logs", "waits")
		s.refused(t, "", `container not found ("app")`, "exec", "waits", "--", "cat")
	}
}

// protocols are how kubectl may carry streams.
var protocols = []struct{ name, env string }{{"WebSocket", "true"}, {"SPDY", "false"}}

func TestKubectlExec(t *testing.T) {
	s := newSite(t)
	s.runningPod(t, "web", "nginx", "sidecar")
	for _, p := range protocols {
		t.Run(p.name, func(t *testing.T) {
			t.Setenv("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", p.env)
			s.must(t, "", "default/web/nginx false", "exec", "web", "--", "whereami")
			s.must(t, "", "default/web/sidecar false", "exec", "web", "-c", "sidecar", "--", "whereami")
			big := strings.Repeat("0123456789abcdef", 64<<10/16*8)
			if out := s.must(t, big, "", "exec", "-i", "web", "-c", "nginx", "--", "cat"); len(out) != len(big) {
				t.Errorf("%d bytes came back of %d", len(out), len(big))
			}
			out, err := s.run(t, "", "exec", "web", "-c", "nginx", "--", "fail")
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 3 || !strings.Contains(out, "no luck\ncommand terminated with exit code 3") {
				t.Errorf("got %v: %s", err, out)
			}
			s.refused(t, "", `executable file not found in $PATH`, "exec", "web", "-c", "nginx", "--", "nothing")
			s.refused(t, "", `container missing is not valid for pod web`, "exec", "web", "-c", "missing", "--", "cat")
			s.terminal(t)
		})
	}
}

// terminal runs kubectl exec -it in a terminal and changes its size.
func (s *site) terminal(t *testing.T) {
	t.Helper()
	cmd := s.command(t.Context(), "exec", "-it", "web", "-c", "nginx", "--", "size")
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 80})
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	if line, err := bufio.NewReader(tty).ReadString('\n'); err != nil || !strings.Contains(line, "ready") {
		t.Fatalf("got %q, %v", line, err)
	}
	wait := func(want remotecommand.TerminalSize) {
		for {
			select {
			case sz := <-s.runtime.sizes:
				if sz == want {
					return
				}
			case <-t.Context().Done():
				t.Fatalf("size %v never came", want)
			}
		}
	}
	wait(remotecommand.TerminalSize{Width: 80, Height: 24})
	if err := pty.Setsize(tty, &pty.Winsize{Rows: 50, Cols: 132}); err != nil {
		t.Fatal(err)
	}
	wait(remotecommand.TerminalSize{Width: 132, Height: 50})
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // it was killed
}

func TestKubectlAttach(t *testing.T) {
	s := newSite(t)
	s.runningPod(t, "web", "nginx")
	for _, p := range protocols {
		t.Run(p.name, func(t *testing.T) {
			t.Setenv("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", p.env)
			s.must(t, "", "attached to default/web", "attach", "web")
		})
	}
}

func TestKubectlPortForward(t *testing.T) {
	s := newSite(t)
	s.runningPod(t, "web", "nginx")
	for _, p := range protocols {
		t.Run(p.name, func(t *testing.T) {
			t.Setenv("KUBECTL_PORT_FORWARD_WEBSOCKETS", p.env)
			cmd := s.command(t.Context(), "port-forward", "--address=127.0.0.1", "pod/web", ":8080")
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				_ = cmd.Process.Kill()
				_ = cmd.Wait() // it was killed
			}()
			line, err := bufio.NewReader(out).ReadString('\n')
			m := regexp.MustCompile(`Forwarding from (127\.0\.0\.1:\d+) -> 8080`).FindStringSubmatch(line)
			if err != nil || m == nil {
				t.Fatalf("got %q, %v, %s", line, err, stderr.String())
			}
			for i := range 3 {
				c, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(t.Context(), "tcp", m[1])
				if err != nil {
					t.Fatal(err)
				}
				if _, err := fmt.Fprintf(c, "hello %d\n", i); err != nil {
					t.Error(err)
				}
				if got, err := bufio.NewReader(c).ReadString('\n'); err != nil || got != fmt.Sprintf("8080 says hello %d\n", i) {
					t.Errorf("got %q, %v", got, err)
				}
				_ = c.Close()
			}
		})
	}
}
