package agentapi

import (
	"net/http"

	"podlab/lab"
)

// statusOf is the one table from code to HTTP status, of the agent's protocol
// and of the server's API.
var statusOf = map[lab.Code]int{
	lab.CodeInvalid:      http.StatusUnprocessableEntity,
	lab.CodeNotFound:     http.StatusNotFound,
	lab.CodeConflict:     http.StatusConflict,
	lab.CodeForbidden:    http.StatusForbidden,
	lab.CodeUnauthorized: http.StatusUnauthorized,
	lab.CodeLimit:        http.StatusTooManyRequests,
	lab.CodeUnavailable:  http.StatusServiceUnavailable,
	lab.CodeNotSupported: http.StatusNotImplemented,
	lab.CodeInternal:     http.StatusInternalServerError,
}

// Status is the HTTP status of a code; an unknown one is a defect of ours.
func Status(c lab.Code) int {
	if s, ok := statusOf[c]; ok {
		return s
	}
	return http.StatusInternalServerError
}

// CodeOf is the code that fits a status which a library chose.
func CodeOf(status int) lab.Code {
	for c, s := range statusOf {
		if s == status {
			return c
		}
	}
	switch {
	case status == http.StatusRequestEntityTooLarge:
		return lab.CodeLimit
	case status < 500:
		return lab.CodeInvalid
	}
	return lab.CodeInternal
}
