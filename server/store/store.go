// Package store keeps what must survive the server in one SQLite file:
// accounts, sessions, labs and progress. It implements the small Store
// interfaces of the packages that use it.
//
// Every write is one transaction in the write-ahead log, so a killed server
// loses nothing that was answered. There is one writing connection and a few
// that read; a DB is safe for concurrent use. Errors that a caller acts on
// are *lab.Error (CodeNotFound, CodeConflict); others name the statement.
package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/pressly/goose/v3"
	"golang.org/x/sys/unix"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"podlab/lab"
)

//go:embed migrations/*.sql
var migrations embed.FS

// File is the name of the database in the data directory.
const File = "podlab.db"

// DB is the open store.
type DB struct {
	write *sql.DB // one connection
	read  *sql.DB
	lock  *os.File
}

// Open opens the database in a directory that exists, or makes it, and brings
// its tables up to date. Only one server may have it open.
func Open(ctx context.Context, dir string, log *slog.Logger) (*DB, error) {
	path := filepath.Join(dir, File)
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, err
	}
	db := &DB{lock: lock}
	if err := db.open(ctx, path); err != nil {
		return nil, errors.Join(explain(path, err), db.Close())
	}
	if err := db.migrate(ctx, log); err != nil {
		return nil, errors.Join(explain(path, err), db.Close())
	}
	return db, nil
}

// lockFile holds off a second server, which SQLite itself would let in.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot open the store: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("cannot open the store: another podlab server uses %s; stop it or give another --data", filepath.Dir(path))
		}
		return nil, fmt.Errorf("cannot lock %s: %w", path, err)
	}
	return f, nil
}

func (db *DB) open(ctx context.Context, path string) error {
	// The file holds hashes of tokens: make it readable for its owner only.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	f.Close()
	q := url.Values{"_pragma": {
		"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(NORMAL)", "foreign_keys(ON)", "temp_store(MEMORY)",
	}}
	dsn := "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + q.Encode()
	if db.write, err = sql.Open("sqlite", dsn+"&_txlock=immediate"); err != nil {
		return err
	}
	db.write.SetMaxOpenConns(1)
	if db.read, err = sql.Open("sqlite", dsn+"&_pragma=query_only(ON)"); err != nil {
		return err
	}
	db.read.SetMaxOpenConns(4)
	db.read.SetMaxIdleConns(4)
	var ok string
	if err := db.write.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&ok); err != nil {
		return err
	}
	if ok != "ok" {
		return fmt.Errorf("the file is damaged: %s", ok)
	}
	return nil
}

func (db *DB) migrate(ctx context.Context, log *slog.Logger) error {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db.write, dir, goose.WithSlog(log))
	if err != nil {
		return fmt.Errorf("cannot read the migrations: %w", err)
	}
	current, newest, err := p.GetVersions(ctx)
	if err != nil {
		return err
	}
	if current > newest {
		return fmt.Errorf("it was written by a newer podlab (version %d, this one knows %d); use that podlab", current, newest)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("cannot migrate the store: %w", err)
	}
	return nil
}

// explain says what to do about a file that cannot be used.
func explain(path string, err error) error {
	what := ""
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		switch e.Code() & 0xff {
		case sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT:
			what = "the file is damaged; restore a copy, or move it away to start with an empty store"
		case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
			what = "another program has it locked; end that program"
		case sqlite3.SQLITE_FULL:
			what = "the disk is full; make room"
		case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN:
			what = "it cannot be written; look at its owner and permissions"
		}
	}
	if what == "" {
		return fmt.Errorf("cannot open the store %s: %w", path, err)
	}
	return fmt.Errorf("cannot open the store %s: %s (%w)", path, what, err)
}

// Close ends all use of the store.
func (db *DB) Close() error {
	var errs []error
	if db.read != nil {
		errs = append(errs, db.read.Close())
	}
	if db.write != nil {
		errs = append(errs, db.write.Close())
	}
	errs = append(errs, db.lock.Close())
	return errors.Join(errs...)
}

// Ping tells whether the store can be read.
func (db *DB) Ping(ctx context.Context) error {
	var one int
	return db.read.QueryRowContext(ctx, "SELECT 1").Scan(&one)
}

// exec runs one statement; it reports CodeConflict for a UNIQUE that is hurt,
// in the words of what.
func (db *DB) exec(ctx context.Context, what, query string, args ...any) (int64, error) {
	res, err := db.write.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, wrap(what, err)
	}
	return res.RowsAffected()
}

func wrap(what string, err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return lab.Errorf(lab.CodeNotFound, "there is no such %s", what)
	}
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		switch e.Code() {
		case sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY:
			return lab.Errorf(lab.CodeConflict, "the %s exists already", what)
		case sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
			return lab.Errorf(lab.CodeNotFound, "the %s belongs to something that is gone", what)
		}
	}
	return fmt.Errorf("cannot read or write the %s: %w", what, err)
}

// queryAll reads all rows of a query.
func queryAll[T any](ctx context.Context, db *DB, what string, scan func(func(...any) error) (T, error), query string, args ...any) ([]T, error) {
	rows, err := db.read.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, wrap(what, err)
	}
	defer rows.Close()
	out := []T{}
	for rows.Next() {
		v, err := scan(rows.Scan)
		if err != nil {
			return nil, wrap(what, err)
		}
		out = append(out, v)
	}
	return out, wrapNil(what, rows.Err())
}

func wrapNil(what string, err error) error {
	if err == nil {
		return nil
	}
	return wrap(what, err)
}

func micros(t time.Time) int64 { return t.UnixMicro() }

func fromMicros(n int64) time.Time { return time.UnixMicro(n).UTC() }
