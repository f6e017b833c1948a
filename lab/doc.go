// Package lab holds the words of a podlab lab: the manifest that says what is
// wanted (Lab), the state that was read from the kernel (State), the events
// that lead from one state to the next (Event), and the errors that cross a
// package or process boundary (Error).
//
// Everything here is inert data. The package imports the standard library
// only, so that the server, the exercises and the browser's generated types
// can share it with the agent. All types are safe to copy; none is safe for
// concurrent mutation.
package lab
