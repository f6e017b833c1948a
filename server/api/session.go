package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"podlab/lab"
	"podlab/server/access"
	"podlab/server/class"
	"podlab/web/view"
)

// User is a person, in answers.
type User struct {
	ID   string    `json:"id"`
	Name string    `json:"name"`
	Role view.Role `json:"role" enum:"learner,instructor"`
	// Class is the class's id, empty for an instructor.
	Class string `json:"class,omitempty"`
}

func userOf(u class.User) User {
	return User{ID: u.ID, Name: u.Name, Role: u.Role, Class: u.Class}
}

// RawRequest carries what a handler needs of the raw request.
type RawRequest struct{ request *http.Request }

// Resolve keeps the request.
func (c *RawRequest) Resolve(ctx huma.Context) []error {
	c.request = requestOf(ctx)
	return nil
}

// Cookie makes the session's cookie; an empty value takes it away.
func Cookie(value string, secure bool, until time.Time) *http.Cookie {
	c := &http.Cookie{
		Name: class.CookieName, Value: value, Path: "/", HttpOnly: true, Secure: secure,
		SameSite: http.SameSiteLaxMode, Expires: until,
	}
	if value == "" {
		c.MaxAge = -1
	}
	return c
}

type (
	signInRequest struct {
		RawRequest
		Body struct {
			Code string `json:"code" maxLength:"64" doc:"The class's code, from the instructor."`
			Name string `json:"name" maxLength:"400" doc:"The learner's name, 1 to 64 characters."`
		}
	}
	signInAnswer struct {
		SetCookie http.Cookie `header:"Set-Cookie"`
		Body      User
	}
	signOutAnswer struct {
		SetCookie http.Cookie `header:"Set-Cookie"`
	}
	signOutRequest struct{ RawRequest }
	tokenRequest   struct {
		Body struct {
			Label string `json:"label,omitempty" maxLength:"80" doc:"What the token is for."`
		}
	}
	// Token is shown once.
	Token struct {
		Token     string    `json:"token"`
		ExpiresAt time.Time `json:"expiresAt"`
	}
)

func (s *Server) session(api huma.API) {
	add(s, api, operation{"POST", "/session", "sign-in", "Sign in with class code and name", 201, true},
		func(ctx context.Context, in *signInRequest) (*signInAnswer, error) {
			cookie, session, err := s.Accounts.SignIn(ctx, in.Body.Code, in.Body.Name, s.Address(in.request))
			if err != nil {
				return nil, err
			}
			return &signInAnswer{*Cookie(cookie, s.Secure(in.request), session.ExpiresAt), userOf(session.User)}, nil
		})
	add(s, api, operation{"GET", "/session", "who-am-i", "Who is signed in", 0, false},
		func(ctx context.Context, _ *none) (*body[User], error) {
			c, err := access.User(ctx)
			if err != nil {
				return nil, err
			}
			return &body[User]{userOf(c.User)}, nil
		})
	add(s, api, operation{"DELETE", "/session", "sign-out", "Sign out", 204, false},
		func(ctx context.Context, in *signOutRequest) (*signOutAnswer, error) {
			c, err := access.User(ctx)
			if err != nil {
				return nil, err
			}
			if err := s.SignOut(ctx, c); err != nil {
				return nil, err
			}
			return &signOutAnswer{*Cookie("", s.Secure(in.request), time.Time{})}, nil
		})
	add(s, api, operation{"POST", "/tokens", "create-token", "Make a token for the command line", 201, false},
		func(ctx context.Context, in *tokenRequest) (*body[Token], error) {
			c, err := access.User(ctx)
			if err != nil {
				return nil, err
			}
			token, session, err := s.Accounts.NewToken(ctx, c.User, in.Body.Label)
			return ok(Token{token, session.ExpiresAt}, err)
		})
	add(s, api, operation{"DELETE", "/tokens", "revoke-tokens", "Revoke all of one's tokens, kubeconfigs' too", 204, false},
		func(ctx context.Context, _ *none) (*none, error) {
			c, err := access.User(ctx)
			if err != nil {
				return nil, err
			}
			return &none{}, s.Accounts.RevokeTokens(ctx, c.User)
		})
	add(s, api, operation{"POST", "/instructor-link", "create-instructor-link", "Make a new one-time sign-in link; for the host's root only", 201, false},
		func(ctx context.Context, _ *none) (*body[InstructorLink], error) {
			c, err := access.User(ctx)
			if err != nil {
				return nil, err
			}
			if !c.Local {
				return nil, lab.Errorf(lab.CodeForbidden, "run `podlab instructor-link` as root on the server")
			}
			secret, err := s.Accounts.NewInstructorLink(ctx)
			return ok(InstructorLink{s.PublicURL + LinkPath + secret}, err)
		})
}

// LinkPath is followed by the secret of an instructor's link.
const LinkPath = "/signin?link="

// InstructorLink signs the instructor in, once.
type InstructorLink struct {
	URL string `json:"url"`
}

// SignOut ends the caller's session and closes its WebSockets.
func (s *Server) SignOut(ctx context.Context, c *access.Caller) error {
	if c.Session == nil {
		return nil
	}
	if err := s.Accounts.SignOut(ctx, *c.Session); err != nil {
		return err
	}
	s.Hub.CloseSession(c.SessionKey())
	return nil
}
