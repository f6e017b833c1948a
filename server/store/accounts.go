package store

import (
	"context"
	"database/sql"
	"time"

	"podlab/lab"
	"podlab/server/class"
)

var _ class.Store = (*DB)(nil)

// Setting returns a value, or CodeNotFound.
func (db *DB) Setting(ctx context.Context, key string) ([]byte, error) {
	var v []byte
	err := db.read.QueryRowContext(ctx, "SELECT value FROM settings WHERE key = ?", key).Scan(&v)
	return v, wrapNil("setting", err)
}

// SetSettingOnce writes a value unless there is one, and returns what is there.
func (db *DB) SetSettingOnce(ctx context.Context, key string, value []byte) ([]byte, error) {
	if _, err := db.exec(ctx, "setting", "INSERT INTO settings (key, value) VALUES (?, ?) ON CONFLICT DO NOTHING", key, value); err != nil {
		return nil, err
	}
	return db.Setting(ctx, key)
}

// AddClass adds a class.
func (db *DB) AddClass(ctx context.Context, c class.Class) error {
	_, err := db.exec(ctx, "class", "INSERT INTO classes (id, name, code, created_at) VALUES (?, ?, ?, ?)", c.ID, c.Name, c.Code, micros(c.CreatedAt))
	return err
}

// UpdateClass writes a class's name and code.
func (db *DB) UpdateClass(ctx context.Context, c class.Class) error {
	n, err := db.exec(ctx, "class", "UPDATE classes SET name = ?, code = ? WHERE id = ?", c.Name, c.Code, c.ID)
	if err == nil && n == 0 {
		err = lab.Errorf(lab.CodeNotFound, "there is no such class")
	}
	return err
}

const classColumns = "id, name, code, created_at"

func scanClass(scan func(...any) error) (class.Class, error) {
	var c class.Class
	var at int64
	err := scan(&c.ID, &c.Name, &c.Code, &at)
	c.CreatedAt = fromMicros(at)
	return c, err
}

// Classes lists all classes, oldest first.
func (db *DB) Classes(ctx context.Context) ([]class.Class, error) {
	return queryAll(ctx, db, "class", scanClass, "SELECT "+classColumns+" FROM classes ORDER BY created_at, id")
}

// ClassByCode finds a class by its code.
func (db *DB) ClassByCode(ctx context.Context, code string) (class.Class, error) {
	c, err := scanClass(db.read.QueryRowContext(ctx, "SELECT "+classColumns+" FROM classes WHERE code = ?", code).Scan)
	return c, wrapNil("class", err)
}

// ClassByID finds a class.
func (db *DB) ClassByID(ctx context.Context, id string) (class.Class, error) {
	c, err := scanClass(db.read.QueryRowContext(ctx, "SELECT "+classColumns+" FROM classes WHERE id = ?", id).Scan)
	return c, wrapNil("class", err)
}

const userColumns = "users.id, users.class, users.role, users.name, users.created_at, users.last_seen"

func scanUser(scan func(...any) error) (class.User, error) {
	var u class.User
	var created, seen int64
	err := scan(&u.ID, &u.Class, &u.Role, &u.Name, &created, &seen)
	u.CreatedAt, u.LastSeen = fromMicros(created), fromMicros(seen)
	return u, err
}

// EnsureUser returns the user of this class, role and folded name, and adds u
// if there is none.
func (db *DB) EnsureUser(ctx context.Context, u class.User, folded string) (class.User, error) {
	row := db.write.QueryRowContext(ctx, `INSERT INTO users (id, class, role, name, folded, created_at, last_seen) VALUES (?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (class, role, folded) DO UPDATE SET last_seen = excluded.last_seen
		RETURNING id, class, role, name, created_at, last_seen`,
		u.ID, u.Class, u.Role, u.Name, folded, micros(u.CreatedAt), micros(u.LastSeen))
	u, err := scanUser(row.Scan)
	return u, wrapNil("user", err)
}

// UserByID finds a user.
func (db *DB) UserByID(ctx context.Context, id string) (class.User, error) {
	u, err := scanUser(db.read.QueryRowContext(ctx, "SELECT "+userColumns+" FROM users WHERE id = ?", id).Scan)
	return u, wrapNil("user", err)
}

// Users lists the learners of a class by name.
func (db *DB) Users(ctx context.Context, classID string) ([]class.User, error) {
	return queryAll(ctx, db, "user", scanUser, "SELECT "+userColumns+" FROM users WHERE class = ? ORDER BY folded", classID)
}

// Seen notes when a user was last there.
func (db *DB) Seen(ctx context.Context, user string, at time.Time) error {
	_, err := db.exec(ctx, "user", "UPDATE users SET last_seen = ? WHERE id = ?", micros(at), user)
	return err
}

// AddSession adds a session.
func (db *DB) AddSession(ctx context.Context, s class.Session) error {
	var labID any
	if s.Lab != "" {
		labID = s.Lab
	}
	_, err := db.exec(ctx, "session", "INSERT INTO sessions (hash, kind, user, lab, label, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
		s.Hash, s.Kind, s.User.ID, labID, s.Label, micros(s.CreatedAt), micros(s.ExpiresAt))
	return err
}

const sessionColumns = "sessions.hash, sessions.kind, sessions.lab, sessions.label, sessions.created_at, sessions.expires_at, " + userColumns

func scanSession(scan func(...any) error) (class.Session, error) {
	var s class.Session
	var labID sql.NullString
	var created, expires, userCreated, seen int64
	err := scan(&s.Hash, &s.Kind, &labID, &s.Label, &created, &expires,
		&s.User.ID, &s.User.Class, &s.User.Role, &s.User.Name, &userCreated, &seen)
	s.Lab = labID.String
	s.CreatedAt, s.ExpiresAt = fromMicros(created), fromMicros(expires)
	s.User.CreatedAt, s.User.LastSeen = fromMicros(userCreated), fromMicros(seen)
	return s, err
}

// SessionByHash finds a session that has not expired.
func (db *DB) SessionByHash(ctx context.Context, hash []byte, at time.Time) (class.Session, error) {
	s, err := scanSession(db.read.QueryRowContext(ctx,
		"SELECT "+sessionColumns+" FROM sessions JOIN users ON users.id = sessions.user WHERE hash = ? AND expires_at > ?", hash, micros(at)).Scan)
	return s, wrapNil("session", err)
}

// TakeSession finds a session and removes it.
func (db *DB) TakeSession(ctx context.Context, hash []byte, at time.Time) (class.Session, error) {
	s, err := db.SessionByHash(ctx, hash, at)
	if err != nil {
		return s, err
	}
	n, err := db.exec(ctx, "session", "DELETE FROM sessions WHERE hash = ?", hash)
	if err == nil && n == 0 { // another took it meanwhile
		err = wrap("session", sql.ErrNoRows)
	}
	return s, err
}

// Sessions lists a user's sessions of a kind, oldest first.
func (db *DB) Sessions(ctx context.Context, user string, kind class.Kind) ([]class.Session, error) {
	return queryAll(ctx, db, "session", scanSession,
		"SELECT "+sessionColumns+" FROM sessions JOIN users ON users.id = sessions.user WHERE user = ? AND kind = ? ORDER BY sessions.created_at", user, kind)
}

// DeleteSession removes a session; one that is gone is no error.
func (db *DB) DeleteSession(ctx context.Context, hash []byte) error {
	_, err := db.exec(ctx, "session", "DELETE FROM sessions WHERE hash = ?", hash)
	return err
}

// DeleteSessionsOfKind removes a user's sessions of a kind.
func (db *DB) DeleteSessionsOfKind(ctx context.Context, user string, kind class.Kind) error {
	_, err := db.exec(ctx, "session", "DELETE FROM sessions WHERE user = ? AND kind = ?", user, kind)
	return err
}

// DeleteExpired removes sessions that expired by the time given.
func (db *DB) DeleteExpired(ctx context.Context, at time.Time) error {
	_, err := db.exec(ctx, "session", "DELETE FROM sessions WHERE expires_at <= ?", micros(at))
	return err
}
