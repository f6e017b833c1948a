// Package hostile holds tests of the whole: learners who misbehave in shells of
// their labs, and a server that is killed meanwhile. It has no other code.
package hostile
