// Package archtest holds the rules of who may import and call whom, as one
// table with reasons, and the test that holds the source to it. It has no code
// for the program itself.
package archtest
