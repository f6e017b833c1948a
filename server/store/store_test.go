package store_test

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"podlab/lab"
	"podlab/server/class"
	"podlab/server/labs"
	"podlab/server/store"
	"podlab/web/view"
)

func open(dir string) (*store.DB, error) {
	return store.Open(context.Background(), dir, slog.New(slog.DiscardHandler))
}

func newDB(t *testing.T) *store.DB {
	t.Helper()
	db, err := open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func codeOf(err error) lab.Code {
	if e, ok := errors.AsType[*lab.Error](err); ok {
		return e.Code
	}
	return ""
}

func TestWhatIsWrittenIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	db, err := open(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	now := time.Now().UTC().Truncate(time.Microsecond)
	u, err := db.EnsureUser(ctx, class.User{ID: "u1", Class: "c1", Role: view.RoleLearner, Name: "하늘", CreatedAt: now, LastSeen: now}, "하늘")
	if err != nil {
		t.Fatal(err)
	}
	again, err := db.EnsureUser(ctx, class.User{ID: "u2", Class: "c1", Role: view.RoleLearner, Name: "하늘", CreatedAt: now, LastSeen: now}, "하늘")
	if err != nil || again.ID != u.ID {
		t.Errorf("the same name again is %+v, %v", again, err)
	}
	r := labs.Record{
		ID: "l1", Owner: u.ID, Name: "one", Exercise: "01", Shape: lab.DefaultLab(), Manifests: "kind: Pod\n",
		Phase: lab.PhaseCreating, Instance: 1, CreatedAt: now,
	}
	if err := db.AddLab(ctx, r); err != nil {
		t.Fatal(err)
	}
	if err := db.AddLab(ctx, r); codeOf(err) != lab.CodeConflict {
		t.Errorf("the same lab again: %v", err)
	}
	r.Phase, r.Reason, r.Instance = lab.PhaseFailed, "why", 2
	if err := db.UpdateLab(ctx, r); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if db, err = open(dir); err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	all, err := db.Labs(ctx)
	if err != nil || len(all) != 1 {
		t.Fatalf("%+v, %v", all, err)
	}
	got := all[0]
	if got.Phase != r.Phase || got.Reason != r.Reason || got.Instance != 2 || got.Manifests != r.Manifests || !got.CreatedAt.Equal(now) ||
		len(got.Shape.Spec.Nodes) != 2 || got.Shape.Spec.Nodes[1].Addresses[1] != r.Shape.Spec.Nodes[1].Addresses[1] {
		t.Errorf("read %+v\nwrote %+v", got, r)
	}
	if err := db.DeleteLab(ctx, "l1"); err != nil {
		t.Fatal(err)
	}
	if err := db.UpdateLab(ctx, r); codeOf(err) != lab.CodeNotFound {
		t.Errorf("update of what is gone: %v", err)
	}
	r.Owner = "nobody"
	if err := db.AddLab(ctx, r); codeOf(err) != lab.CodeNotFound {
		t.Errorf("a lab of nobody: %v", err)
	}
}

func TestSessionsExpireAndGoWithTheirLab(t *testing.T) {
	db, ctx, now := newDB(t), t.Context(), time.Now()
	u, err := db.EnsureUser(ctx, class.User{ID: "u1", Role: view.RoleInstructor, Name: "i"}, "i")
	if err != nil {
		t.Fatal(err)
	}
	if err := db.AddLab(ctx, labs.Record{ID: "l1", Owner: u.ID, Name: "one", Phase: lab.PhaseReady}); err != nil {
		t.Fatal(err)
	}
	for hash, s := range map[string]class.Session{
		"cookie": {Kind: class.KindCookie, ExpiresAt: now.Add(time.Hour)},
		"old":    {Kind: class.KindCookie, ExpiresAt: now.Add(-time.Second)},
		"kube":   {Kind: class.KindKube, Lab: "l1", ExpiresAt: now.Add(time.Hour)},
		"link":   {Kind: class.KindLink, ExpiresAt: now.Add(time.Hour)},
	} {
		s.Hash, s.User, s.CreatedAt = []byte(hash), u, now
		if err := db.AddSession(ctx, s); err != nil {
			t.Fatal(hash, err)
		}
	}
	find := func(hash string) error {
		_, err := db.SessionByHash(ctx, []byte(hash), now)
		return err
	}
	if find("cookie") != nil || find("kube") != nil || codeOf(find("old")) != lab.CodeNotFound {
		t.Errorf("cookie %v, kube %v, old %v", find("cookie"), find("kube"), find("old"))
	}
	if s, err := db.TakeSession(ctx, []byte("link"), now); err != nil || s.User.ID != u.ID {
		t.Errorf("take: %+v, %v", s, err)
	}
	if _, err := db.TakeSession(ctx, []byte("link"), now); codeOf(err) != lab.CodeNotFound {
		t.Errorf("take again: %v", err)
	}
	if err := db.DeleteLab(ctx, "l1"); err != nil {
		t.Fatal(err)
	}
	if codeOf(find("kube")) != lab.CodeNotFound {
		t.Error("a kubeconfig outlives its lab")
	}
}

func TestTheFirstPassIsRemembered(t *testing.T) {
	db, ctx, now := newDB(t), t.Context(), time.Now()
	u, err := db.EnsureUser(ctx, class.User{ID: "u1", Role: view.RoleLearner, Name: "l"}, "l")
	if err != nil {
		t.Fatal(err)
	}
	for _, status := range []view.CheckStatus{view.CheckFail, view.CheckPass, view.CheckFail} {
		if err := db.SaveChecks(ctx, u.ID, "01", []view.CheckResult{{Task: "t", Check: "a", Status: status, At: now}, {Task: "t", Check: "b", Status: view.CheckFail, At: now}}); err != nil {
			t.Fatal(err)
		}
	}
	p, err := db.Progress(ctx, u.ID)
	if err != nil || len(p) != 2 || !p[0].Passed || p[0].Status != view.CheckFail || p[1].Passed {
		t.Errorf("progress %+v, %v", p, err)
	}
	if err := db.SaveChecks(ctx, "nobody", "01", []view.CheckResult{{Task: "t", Check: "a", Status: view.CheckPass}}); codeOf(err) != lab.CodeNotFound {
		t.Errorf("progress of nobody: %v", err)
	}
}

func TestAStoreThatCannotBeUsedSaysWhatToDo(t *testing.T) {
	for _, tc := range []struct {
		name    string
		prepare func(t *testing.T, dir string)
		says    string
	}{
		{"no database", func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, store.File), []byte(strings.Repeat("this is no database\n", 500)), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "move it away"},
		{"damaged", func(t *testing.T, dir string) {
			db, err := open(dir)
			if err != nil {
				t.Fatal(err)
			}
			db.Close()
			f, err := os.OpenFile(filepath.Join(dir, store.File), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			for at := int64(4096); at < 40960; at += 4096 {
				if _, err := f.WriteAt([]byte(strings.Repeat("\xee", 600)), at); err != nil {
					t.Fatal(err)
				}
			}
		}, "damaged"},
		{"another server", func(t *testing.T, dir string) {
			db, err := open(dir)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { db.Close() })
		}, "another podlab server"},
		{"locked by another program", func(t *testing.T, dir string) {
			db, err := open(dir)
			if err != nil {
				t.Fatal(err)
			}
			db.Close()
			other, err := sql.Open("sqlite", filepath.Join(dir, store.File)+"?_pragma=journal_mode(DELETE)&_pragma=locking_mode(EXCLUSIVE)")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { other.Close() })
			if _, err := other.Exec("BEGIN EXCLUSIVE"); err != nil {
				t.Fatal(err)
			}
		}, "locked"},
		{"newer version", func(t *testing.T, dir string) {
			db, err := open(dir)
			if err != nil {
				t.Fatal(err)
			}
			db.Close()
			other, err := sql.Open("sqlite", filepath.Join(dir, store.File))
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			if _, err := other.Exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, 1)"); err != nil {
				t.Fatal(err)
			}
		}, "newer podlab"},
		{"no directory", func(t *testing.T, dir string) { os.Remove(dir) }, "no such file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			tc.prepare(t, dir)
			db, err := open(dir)
			if err == nil {
				db.Close()
				t.Fatal("it was opened")
			}
			if !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%v; want %q", err, tc.says)
			}
		})
	}
}

func TestTheStoreIsForItsOwnerOnly(t *testing.T) {
	dir := t.TempDir()
	db, err := open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.SetSettingOnce(t.Context(), "k", []byte("v")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{store.File, store.File + "-wal", store.File + ".lock"} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %o", name, st.Mode().Perm())
		}
	}
	if v, err := db.SetSettingOnce(t.Context(), "k", []byte("other")); err != nil || string(v) != "v" {
		t.Errorf("a second value: %q, %v", v, err)
	}
}
