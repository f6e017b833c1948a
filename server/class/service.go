package class

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"podlab/lab"
	"podlab/web/view"
)

// How long things last.
const (
	cookieLife = 30 * 24 * time.Hour
	tokenLife  = 180 * 24 * time.Hour
	linkLife   = 7 * 24 * time.Hour
	// seenEvery bounds how often last_seen is written.
	seenEvery = time.Minute
)

// maxTokens a user may have.
const maxTokens = 20

// CookieName of the session's cookie.
const CookieName = "podlab_session"

const (
	settingSecret   = "cookie-secret"
	settingSignedIn = "instructor-signed-in"
)

// InstructorName is the name of the one instructor.
const InstructorName = "instructor"

// Service does what the package says.
type Service struct {
	store  Store
	secret []byte
	now    func() time.Time
	limit  *limiter
}

// New makes a Service; the secret that signs cookies is made on first use of
// the store.
func New(ctx context.Context, store Store) (*Service, error) {
	secret, err := store.SetSettingOnce(ctx, settingSecret, randomBytes(32))
	if err != nil {
		return nil, fmt.Errorf("cannot make the cookies' secret: %w", err)
	}
	s := &Service{store: store, secret: secret, now: time.Now, limit: newLimiter()}
	return s, store.DeleteExpired(ctx, s.now())
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails (crypto/rand)
	return b
}

// newSecret makes a secret and the hash that the store keeps.
func newSecret() (string, []byte) {
	secret := base64.RawURLEncoding.EncodeToString(randomBytes(32))
	return secret, hashOf(secret)
}

func hashOf(secret string) []byte {
	h := sha256.Sum256([]byte(secret))
	return h[:]
}

// newID makes an id for a row.
func newID(prefix string) string {
	return prefix + "-" + strings.ToLower(rand.Text()[:13])
}

func (s *Service) add(ctx context.Context, u User, kind Kind, labID, label string, life time.Duration) (string, Session, error) {
	secret, hash := newSecret()
	now := s.now().UTC()
	session := Session{Hash: hash, Kind: kind, User: u, Lab: labID, Label: label, CreatedAt: now, ExpiresAt: now.Add(life)}
	return secret, session, s.store.AddSession(ctx, session)
}

// SignIn makes a session for the learner of a class, who is added when new.
// from is the caller's address, for the limit on wrong codes.
func (s *Service) SignIn(ctx context.Context, code, name, from string) (cookie string, session Session, err error) {
	now := s.now()
	if wait := s.limit.blocked(from, now); wait > 0 {
		return "", session, lab.Errorf(lab.CodeLimit, "too many wrong class codes; try again in %d seconds", int(wait.Seconds())+1)
	}
	name, err = CleanName(name)
	if err != nil {
		return "", session, err
	}
	c, err := s.store.ClassByCode(ctx, cleanCode(code))
	if isNotFound(err) {
		s.limit.failed(from, now)
		return "", session, &lab.Error{Code: lab.CodeUnauthorized, Field: "code", Message: "there is no class with this code; ask your instructor"}
	}
	if err != nil {
		return "", session, err
	}
	u := User{ID: newID("u"), Class: c.ID, Name: name, Role: view.RoleLearner, CreatedAt: now, LastSeen: now}
	if u, err = s.store.EnsureUser(ctx, u, fold(name)); err != nil {
		return "", session, err
	}
	secret, session, err := s.add(ctx, u, KindCookie, "", "", cookieLife)
	return s.sign(secret), session, err
}

// Instructor returns the instructor's account.
func (s *Service) Instructor(ctx context.Context) (User, error) {
	now := s.now()
	return s.store.EnsureUser(ctx, User{ID: newID("u"), Name: InstructorName, Role: view.RoleInstructor, CreatedAt: now, LastSeen: now}, InstructorName)
}

// InstructorSignedIn reports whether a link was ever used.
func (s *Service) InstructorSignedIn(ctx context.Context) (bool, error) {
	_, err := s.store.Setting(ctx, settingSignedIn)
	if isNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// NewInstructorLink makes a secret that signs the instructor in once; former
// links that were not used no longer work.
func (s *Service) NewInstructorLink(ctx context.Context) (string, error) {
	u, err := s.Instructor(ctx)
	if err != nil {
		return "", err
	}
	if err := s.store.DeleteSessionsOfKind(ctx, u.ID, KindLink); err != nil {
		return "", err
	}
	secret, _, err := s.add(ctx, u, KindLink, "", "", linkLife)
	return secret, err
}

// UseLink turns the secret of a link into a session, once.
func (s *Service) UseLink(ctx context.Context, secret, from string) (cookie string, session Session, err error) {
	now := s.now()
	if wait := s.limit.blocked(from, now); wait > 0 {
		return "", session, lab.Errorf(lab.CodeLimit, "too many wrong links; try again in %d seconds", int(wait.Seconds())+1)
	}
	link, err := s.store.TakeSession(ctx, hashOf(secret), now)
	if err == nil && link.Kind != KindLink {
		// Somebody used another secret as a link: it is burnt, as it was shown in an address.
		err = lab.Errorf(lab.CodeNotFound, "not a link")
	}
	if isNotFound(err) {
		s.limit.failed(from, now)
		return "", session, lab.Errorf(lab.CodeUnauthorized, "this sign-in link was used already or is too old; run `podlab instructor-link` on the server for a new one")
	}
	if err != nil {
		return "", session, err
	}
	if _, err := s.store.SetSettingOnce(ctx, settingSignedIn, []byte(now.UTC().Format(time.RFC3339))); err != nil {
		return "", session, err
	}
	value, session, err := s.add(ctx, link.User, KindCookie, "", "", cookieLife)
	return s.sign(value), session, err
}

// sign appends a keyed hash to a cookie's secret, so that made-up cookies
// never reach the store.
func (s *Service) sign(secret string) string {
	return secret + "." + base64.RawURLEncoding.EncodeToString(s.mac(secret))
}

func (s *Service) mac(secret string) []byte {
	m := hmac.New(sha256.New, s.secret)
	m.Write([]byte(secret))
	return m.Sum(nil)
}

var errNoSession = lab.Errorf(lab.CodeUnauthorized, "you are not signed in, or your session has ended; sign in again")

// ByCookie returns the session of a cookie's value.
func (s *Service) ByCookie(ctx context.Context, value string) (Session, error) {
	secret, sum, ok := strings.Cut(value, ".")
	got, err := base64.RawURLEncoding.DecodeString(sum)
	if !ok || err != nil || !hmac.Equal(got, s.mac(secret)) {
		return Session{}, errNoSession
	}
	return s.bySecret(ctx, secret, KindCookie)
}

// ByToken returns the session of a bearer token: a user's or a lab's.
func (s *Service) ByToken(ctx context.Context, token string) (Session, error) {
	return s.bySecret(ctx, token, KindToken, KindKube)
}

func (s *Service) bySecret(ctx context.Context, secret string, kinds ...Kind) (Session, error) {
	now := s.now()
	session, err := s.store.SessionByHash(ctx, hashOf(secret), now)
	if isNotFound(err) {
		return session, errNoSession
	}
	if err != nil {
		return session, err
	}
	for _, k := range kinds {
		if session.Kind != k {
			continue
		}
		if now.Sub(session.User.LastSeen) > seenEvery {
			return session, s.store.Seen(ctx, session.User.ID, now)
		}
		return session, nil
	}
	return Session{}, errNoSession
}

// SignOut ends a session.
func (s *Service) SignOut(ctx context.Context, session Session) error {
	return s.store.DeleteSession(ctx, session.Hash)
}

// NewToken makes a token that acts as the user, for the command line.
func (s *Service) NewToken(ctx context.Context, u User, label string) (string, Session, error) {
	have, err := s.store.Sessions(ctx, u.ID, KindToken)
	if err != nil {
		return "", Session{}, err
	}
	if len(have) >= maxTokens {
		return "", Session{}, lab.Errorf(lab.CodeLimit, "you have %d tokens, the most allowed; revoke one first", len(have))
	}
	return s.add(ctx, u, KindToken, "", label, tokenLife)
}

// NewKubeToken makes a token for one lab's Kubernetes API; it ends with the lab.
func (s *Service) NewKubeToken(ctx context.Context, u User, labID string) (string, error) {
	token, _, err := s.add(ctx, u, KindKube, labID, "", tokenLife)
	return token, err
}

// RevokeTokens ends all of a user's tokens.
func (s *Service) RevokeTokens(ctx context.Context, u User) error {
	return errors.Join(s.store.DeleteSessionsOfKind(ctx, u.ID, KindToken), s.store.DeleteSessionsOfKind(ctx, u.ID, KindKube))
}

// CreateClass makes a class with a new code.
func (s *Service) CreateClass(ctx context.Context, name string) (Class, error) {
	name, err := CleanName(name)
	if err != nil {
		return Class{}, err
	}
	c := Class{ID: newID("c"), Name: name, Code: newCode(), CreatedAt: s.now().UTC()}
	return c, s.store.AddClass(ctx, c)
}

// NewClassCode gives a class another code; those signed in stay so.
func (s *Service) NewClassCode(ctx context.Context, id string) (Class, error) {
	c, err := s.store.ClassByID(ctx, id)
	if err != nil {
		return c, err
	}
	c.Code = newCode()
	return c, s.store.UpdateClass(ctx, c)
}

// Classes lists all classes.
func (s *Service) Classes(ctx context.Context) ([]Class, error) { return s.store.Classes(ctx) }

// Class finds a class by its id.
func (s *Service) Class(ctx context.Context, id string) (Class, error) {
	return s.store.ClassByID(ctx, id)
}

// Learners lists the learners of a class.
func (s *Service) Learners(ctx context.Context, id string) ([]User, error) {
	return s.store.Users(ctx, id)
}

// User finds a user by its id.
func (s *Service) User(ctx context.Context, id string) (User, error) {
	return s.store.UserByID(ctx, id)
}

func isNotFound(err error) bool {
	e, ok := errors.AsType[*lab.Error](err)
	return ok && e.Code == lab.CodeNotFound
}
