package lab

import "fmt"

// Code says what kind of failure an Error is, for a program to act on.
type Code string

// The codes of Error; the server has one table from code to HTTP status.
const (
	CodeInvalid      Code = "invalid"       // the input is wrong; nothing was changed
	CodeNotFound     Code = "not-found"     // the named thing does not exist
	CodeConflict     Code = "conflict"      // the thing exists already or changed meanwhile
	CodeForbidden    Code = "forbidden"     // the caller may not do this
	CodeUnauthorized Code = "unauthorized"  // the caller is not signed in
	CodeLimit        Code = "limit"         // a limit of size, number or rate is reached
	CodeUnavailable  Code = "unavailable"   // try again later: the lab or a part of it is not up
	CodeNotSupported Code = "not-supported" // the host or kernel lacks what is needed
	CodeInternal     Code = "internal"      // a defect; details are in the log only
)

// Error is an error at a boundary: between packages where a caller acts on
// the code, and between processes, where it travels as JSON.
type Error struct {
	Code Code `json:"code"`
	// Message names the thing, what was found, what is allowed and what to do.
	Message string `json:"message"`
	// Field is the path of the offending field, such as "spec.nodes[1].address".
	Field string `json:"field,omitempty"`
	// Line and Column are 1-based positions in the text given; 0 is unknown.
	Line   int `json:"line,omitempty"`
	Column int `json:"column,omitempty"`
}

// Error returns the message, after the field if there is one.
func (e *Error) Error() string {
	if e.Field != "" {
		return e.Field + ": " + e.Message
	}
	return e.Message
}

// Errorf makes an Error with a formatted message.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}
