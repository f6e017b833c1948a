// Package class is who may use podlab: classes with their codes, learners who
// sign in with code and name, the instructor with a one-time link, sessions
// and tokens.
//
// Secrets are kept as SHA-256 of 256 random bits and compared by look-up of
// that hash, so no comparison's duration tells anything. A Service is safe
// for concurrent use; its errors are *lab.Error.
package class

import (
	"context"
	"time"

	"podlab/web/view"
)

// Class is a group of learners with one code.
type Class struct {
	ID        string
	Name      string
	Code      string
	CreatedAt time.Time
}

// User is a learner or an instructor.
type User struct {
	ID string
	// Class is the id of a learner's class, empty for an instructor.
	Class     string
	Name      string
	Role      view.Role
	CreatedAt time.Time
	LastSeen  time.Time
}

// Kind of a session.
type Kind string

// The kinds. A link is used once, to become a cookie; a kube token opens one
// lab's Kubernetes API and nothing else.
const (
	KindCookie Kind = "cookie"
	KindToken  Kind = "token"
	KindKube   Kind = "kube"
	KindLink   Kind = "link"
)

// Session is a right to act as a user until it expires.
type Session struct {
	// Hash of the secret, SHA-256.
	Hash []byte
	Kind Kind
	User User
	// Lab that a kube token is bound to.
	Lab string
	// Label that a person gave a token.
	Label     string
	CreatedAt time.Time
	ExpiresAt time.Time
}

// Store keeps accounts. Its methods return CodeNotFound for what is not there
// and CodeConflict for what is there already.
type Store interface {
	Setting(ctx context.Context, key string) ([]byte, error)
	// SetSettingOnce writes the value unless the key has one, and returns what
	// the key has then.
	SetSettingOnce(ctx context.Context, key string, value []byte) ([]byte, error)

	AddClass(ctx context.Context, c Class) error
	Classes(ctx context.Context) ([]Class, error)
	ClassByCode(ctx context.Context, code string) (Class, error)
	ClassByID(ctx context.Context, id string) (Class, error)
	UpdateClass(ctx context.Context, c Class) error

	// EnsureUser returns the user with this class, role and folded name, made
	// from u if there is none.
	EnsureUser(ctx context.Context, u User, folded string) (User, error)
	UserByID(ctx context.Context, id string) (User, error)
	Users(ctx context.Context, class string) ([]User, error)
	Seen(ctx context.Context, user string, at time.Time) error

	AddSession(ctx context.Context, s Session) error
	// SessionByHash returns a session that has not expired at the time given.
	SessionByHash(ctx context.Context, hash []byte, at time.Time) (Session, error)
	// TakeSession is SessionByHash that removes it: only one caller gets it.
	TakeSession(ctx context.Context, hash []byte, at time.Time) (Session, error)
	Sessions(ctx context.Context, user string, kind Kind) ([]Session, error)
	DeleteSession(ctx context.Context, hash []byte) error
	DeleteSessionsOfKind(ctx context.Context, user string, kind Kind) error
	DeleteExpired(ctx context.Context, at time.Time) error
}
