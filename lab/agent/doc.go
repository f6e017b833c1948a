// Package agent is the composition root inside a sandbox: it wires the lab's
// network, its Kubernetes API, kubelets and terminals together and serves them
// on the Unix socket whose protocol package agentapi describes. It runs as PID
// 1 of the sandbox; when it ends, the kernel removes all of the lab.
package agent
