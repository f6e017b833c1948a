package observe

// Hold keeps the watcher's goroutine busy until release is called, as when it
// cannot keep up.
func (w *Watcher) Hold() (release func()) {
	held, free := make(chan struct{}), make(chan struct{})
	w.post(func() { close(held); <-free })
	<-held
	return func() { close(free) }
}

// Keep is how many events a log has in memory.
const Keep = keep
