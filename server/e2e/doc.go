// Package e2e holds tests of the whole: the real program serves, its command
// line makes labs, and learners' shells in them misbehave. It has no other code.
package e2e
