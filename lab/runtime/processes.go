package runtime

// PodProcesses are the processes that hold a pod, by process id in the
// agent's pid namespace.
type PodProcesses struct {
	// Pause holds the pod's namespaces.
	Pause int
	// Containers by name, each with the process id of its first process; those
	// that do not run are absent.
	Containers map[string]int
}

// Pods lists the running pods.
func (r *Runtime) Pods() map[PodKey]PodProcesses {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make(map[PodKey]PodProcesses, len(r.pods))
	for _, p := range r.pods {
		if r.newestPod(p.spec.PodKey) != p {
			continue // one that is ending, of the same name
		}
		pp := PodProcesses{Containers: map[string]int{}}
		if p.pause.Running() {
			pp.Pause = p.pause.PID()
		}
		for _, c := range p.containers {
			if c.Running() {
				pp.Containers[c.spec.Name] = c.PID()
			}
		}
		list[p.spec.PodKey] = pp
	}
	return list
}

// Nodes lists the nodes' first processes.
func (r *Runtime) Nodes() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make(map[string]int, len(r.nodes))
	for name, n := range r.nodes {
		list[name] = n.pause.PID()
	}
	return list
}
