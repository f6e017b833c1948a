package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/kubernetes/pkg/kubelet/client"
)

// Runtime runs what kubectl exec, attach, port-forward and logs ask for. The
// lab's kubelets implement it.
//
// A command that ends with a status other than 0 gives an error that is a
// k8s.io/utils/exec.ExitError. Each call returns when ctx ends.
type Runtime interface {
	// Exec runs cmd in a running container. Any of in, out and err may be nil;
	// with a terminal err is. resize carries the terminal's sizes.
	Exec(ctx context.Context, pod types.NamespacedName, container string, cmd []string,
		in io.Reader, out, err io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error
	// Attach joins the streams of the container's own process.
	Attach(ctx context.Context, pod types.NamespacedName, container string,
		in io.Reader, out, err io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error
	// PortForward copies between stream and a TCP port on the pod's localhost.
	PortForward(ctx context.Context, pod types.NamespacedName, port int32, stream io.ReadWriteCloser) error
	// Logs writes the container's log as opts ask, and follows it if they do.
	Logs(ctx context.Context, pod types.NamespacedName, container string, opts *corev1.PodLogOptions, out io.Writer) error
}

// SetRuntime gives the server the runtime; before that, streams answer that
// the kubelet is not there.
func (s *Server) SetRuntime(r Runtime) {
	s.runtimeMu.Lock()
	defer s.runtimeMu.Unlock()
	s.runtime = r
}

func (s *Server) currentRuntime() Runtime {
	s.runtimeMu.Lock()
	defer s.runtimeMu.Unlock()
	return s.runtime
}

// The API server reaches a kubelet by HTTP and, for streams, by an upgraded
// connection. Here both ends are in one process: the transport's connections
// are socket pairs, and kubeletHandler serves their other ends.
const (
	kubeletScheme = "http"
	kubeletHost   = "kubelet.podlab"
	kubeletPort   = 10250
)

// GetConnectionInfo says how to reach the kubelet of a node: all the same way.
func (s *Server) GetConnectionInfo(context.Context, types.NodeName) (*client.ConnectionInfo, error) {
	return &client.ConnectionInfo{
		Scheme: kubeletScheme, Hostname: kubeletHost, Port: strconv.Itoa(kubeletPort),
		Transport: s.kubeletTransport, InsecureSkipTLSVerifyTransport: s.kubeletTransport,
	}, nil
}

func (s *Server) kubeletConfig() client.KubeletClientConfig {
	return client.KubeletClientConfig{
		Port: kubeletPort, ReadOnlyPort: kubeletPort,
		PreferredAddressTypes: []string{string(corev1.NodeInternalIP)},
	}
}

func (s *Server) newKubeletTransport() http.RoundTripper {
	return &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			near, far, err := socketPair()
			if err != nil {
				return nil, err
			}
			s.serveConn(far)
			return near, nil
		},
	}
}

// serveConn serves one request on the connection, and its stream if it
// becomes one. The connection ends with the request or with the server.
func (s *Server) serveConn(c net.Conn) {
	cut := context.AfterFunc(s.ctx, func() { _ = c.Close() })
	ctx, gone := context.WithCancel(s.ctx)
	l := &oneConn{conn: &watchedConn{c, gone}, closed: make(chan struct{})}
	handled := make(chan struct{})
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer close(handled) // there is one request: keep-alives are off
			s.serveKubelet(w, r)
		}),
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnState: func(_ net.Conn, st http.ConnState) {
			switch st {
			case http.StateHijacked:
				s.wg.Go(func() {
					<-handled
					cut()
					gone()
				})
				_ = l.Close()
			case http.StateClosed:
				_ = l.Close()
				cut()
				gone()
			}
		},
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	srv.SetKeepAlivesEnabled(false)
	s.wg.Go(func() {
		_ = srv.Serve(l) // ends when its only connection does
	})
}

// oneConn is a listener with one connection.
type oneConn struct {
	conn   net.Conn
	given  bool
	closed chan struct{}
	once   onceFlag
}

func (l *oneConn) Accept() (net.Conn, error) {
	if !l.given {
		l.given = true
		return l.conn, nil
	}
	<-l.closed
	return nil, net.ErrClosed
}

func (l *oneConn) Close() error {
	if l.once.first() {
		close(l.closed)
	}
	return nil
}

func (l *oneConn) Addr() net.Addr { return l.conn.LocalAddr() }

// socketPair is two joined stream sockets.
func socketPair() (near, far net.Conn, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot make socket pair: %w", err)
	}
	near, err1 := fdConn(fds[0])
	far, err2 := fdConn(fds[1])
	if err := errors.Join(err1, err2); err != nil {
		for _, c := range []net.Conn{near, far} {
			if c != nil {
				_ = c.Close()
			}
		}
		return nil, nil, err
	}
	return near, far, nil
}

func fdConn(fd int) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), "kubelet")
	defer f.Close() // FileConn has its own duplicate
	return net.FileConn(f)
}

// serveKubelet is the part of a kubelet's HTTP API that the API server uses.
func (s *Server) serveKubelet(w http.ResponseWriter, req *http.Request) {
	rt := s.currentRuntime()
	if rt == nil {
		http.Error(w, "the lab's kubelets have not started yet", http.StatusServiceUnavailable)
		return
	}
	parts := strings.Split(strings.Trim(req.URL.Path, "/"), "/")
	if len(parts) < 3 {
		http.NotFound(w, req)
		return
	}
	verb, pod := parts[0], types.NamespacedName{Namespace: parts[1], Name: parts[2]}
	container := ""
	if len(parts) > 3 {
		container = parts[3]
	}
	k := kubeletCall{s: s, rt: rt, pod: pod}
	switch verb {
	case "containerLogs":
		k.logs(w, req, container)
	case "exec", "attach":
		k.command(w, req, verb, container)
	case "portForward":
		opts, err := portforward.NewV4Options(req)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		portforward.ServePortForward(w, req, k, pod.Name, "", opts, streamIdle, streamCreation, portforward.SupportedProtocols)
	default:
		http.NotFound(w, req)
	}
}

const (
	streamIdle     = 4 * time.Hour
	streamCreation = 30 * time.Second
)

// kubeletCall is one request to a pod.
type kubeletCall struct {
	s   *Server
	rt  Runtime
	pod types.NamespacedName
}

func (k kubeletCall) command(w http.ResponseWriter, req *http.Request, verb, container string) {
	opts, err := remotecommand.NewOptions(req)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	pod, err := k.s.Core().Pods(k.pod.Namespace).Get(req.Context(), k.pod.Name, metav1.GetOptions{})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if st := containerStatus(pod, container); st == nil || st.State.Running == nil {
		// The words of pkg/kubelet/kubelet_pods.go GetExec.
		http.Error(w, fmt.Sprintf("container not found (%q)", container), http.StatusInternalServerError)
		return
	}
	if verb == "exec" {
		remotecommand.ServeExec(w, req, k, k.pod.Name, "", container, req.Form[corev1.ExecCommandParam], opts,
			streamIdle, streamCreation, remotecommand.SupportedStreamingProtocols)
		return
	}
	remotecommand.ServeAttach(w, req, k, k.pod.Name, "", container, opts, streamIdle, streamCreation, remotecommand.SupportedStreamingProtocols)
}

// ExecInContainer is remotecommand.Executor.
func (k kubeletCall) ExecInContainer(ctx context.Context, _, _, container string, cmd []string, in io.Reader, out, stderr io.WriteCloser,
	tty bool, resize <-chan remotecommand.TerminalSize, _ time.Duration) error {
	return k.rt.Exec(ctx, k.pod, container, cmd, in, out, stderr, tty, resize)
}

// AttachContainer is remotecommand.Attacher.
func (k kubeletCall) AttachContainer(ctx context.Context, _, _, container string, in io.Reader, out, stderr io.WriteCloser,
	tty bool, resize <-chan remotecommand.TerminalSize) error {
	return k.rt.Attach(ctx, k.pod, container, in, out, stderr, tty, resize)
}

// PortForward is portforward.PortForwarder.
func (k kubeletCall) PortForward(ctx context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	return k.rt.PortForward(ctx, k.pod, port, stream)
}

func (k kubeletCall) logs(w http.ResponseWriter, req *http.Request, container string) {
	opts, err := logOptions(req)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	pod, err := k.s.Core().Pods(k.pod.Namespace).Get(req.Context(), k.pod.Name, metav1.GetOptions{})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if err := logsReady(pod, container, opts.Previous); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	out := &flushing{w: w, limit: -1}
	if opts.LimitBytes != nil {
		out.limit = *opts.LimitBytes
	}
	if opts.Follow {
		w.Header().Set("Transfer-Encoding", "chunked")
		w.WriteHeader(http.StatusOK)
		out.flush()
	}
	err = k.rt.Logs(req.Context(), k.pod, container, opts, out)
	if err != nil && !errors.Is(err, errLogLimit) && req.Context().Err() == nil && !out.began {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

func containerStatus(pod *corev1.Pod, container string) *corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{
		pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses, pod.Status.EphemeralContainerStatuses,
	} {
		for i := range list {
			if list[i].Name == container {
				return &list[i]
			}
		}
	}
	return nil
}

// logsReady says why a container has no log yet, in the words of
// pkg/kubelet/kubelet_pods.go validateContainerLogStatus.
func logsReady(pod *corev1.Pod, container string, previous bool) error {
	st := containerStatus(pod, container)
	if st == nil {
		return fmt.Errorf("container %q in pod %q is not available", container, pod.Name)
	}
	last, waiting, running, ended := st.LastTerminationState.Terminated, st.State.Waiting, st.State.Running, st.State.Terminated
	switch {
	case previous && (last == nil || last.ContainerID == ""):
		return fmt.Errorf("previous terminated container %q in pod %q not found", container, pod.Name)
	case previous || running != nil:
		return nil
	case ended != nil && ended.ContainerID != "":
		return nil
	case ended != nil && last != nil && last.ContainerID != "":
		return nil
	case ended != nil:
		return fmt.Errorf("container %q in pod %q is terminated", container, pod.Name)
	case waiting != nil && last != nil && last.ContainerID != "":
		return nil
	case waiting != nil && (waiting.Reason == "ErrImagePull" || waiting.Reason == "ImagePullBackOff"):
		return fmt.Errorf("container %q in pod %q is waiting to start: %s", container, pod.Name, pullReason(waiting.Reason))
	case waiting != nil:
		return fmt.Errorf("container %q in pod %q is waiting to start: %s", container, pod.Name, waiting.Reason)
	}
	return fmt.Errorf("container %q in pod %q is waiting to start - no logs yet", container, pod.Name)
}

func pullReason(reason string) string {
	if reason == "ErrImagePull" {
		return "image can't be pulled"
	}
	return "trying and failing to pull image"
}

func logOptions(req *http.Request) (*corev1.PodLogOptions, error) {
	q := req.URL.Query()
	o := &corev1.PodLogOptions{
		Follow: q.Get("follow") == "true", Previous: q.Get("previous") == "true", Timestamps: q.Get("timestamps") == "true",
	}
	for key, field := range map[string]**int64{"sinceSeconds": &o.SinceSeconds, "tailLines": &o.TailLines, "limitBytes": &o.LimitBytes} {
		if v := q.Get(key); v != "" {
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("%s: %q is not a number", key, v)
			}
			*field = &n
		}
	}
	if v := q.Get("sinceTime"); v != "" {
		t, err := time.Parse(time.RFC3339, v)
		if err != nil {
			return nil, fmt.Errorf("sinceTime: %w", err)
		}
		o.SinceTime = &metav1.Time{Time: t}
	}
	if v := q.Get("stream"); v != "" {
		o.Stream = &v
	}
	return o, nil
}

var errLogLimit = errors.New("the log's limit of bytes is reached")

// flushing writes log lines through at once, up to a limit of bytes.
type flushing struct {
	w     http.ResponseWriter
	limit int64 // negative: none
	began bool
}

func (f *flushing) Write(p []byte) (int, error) {
	full := len(p)
	if f.limit >= 0 && int64(len(p)) > f.limit {
		p = p[:f.limit]
	}
	f.began = true
	n, err := f.w.Write(p)
	if f.limit >= 0 {
		f.limit -= int64(n)
	}
	f.flush()
	if err == nil && n < full {
		err = errLogLimit
	}
	return n, err
}

func (f *flushing) flush() {
	if fl, ok := f.w.(http.Flusher); ok {
		fl.Flush()
	}
}
