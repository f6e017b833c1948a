package i18n

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"podlab/web/view"
)

var place = regexp.MustCompile(`\{[a-z]+\}`)

func TestEveryMessageIsInEveryLanguage(t *testing.T) {
	if len(table()) < 50 {
		t.Fatalf("only %d messages: the table was not read", len(table()))
	}
	for key, text := range table() {
		for _, lang := range []view.Lang{view.Korean, view.English} {
			if strings.TrimSpace(text[lang]) == "" {
				t.Errorf("%s has no text in %q", key, lang)
			}
		}
		if len(text) != 2 {
			t.Errorf("%s has %d languages, want ko and en only", key, len(text))
		}
		ko, en := place.FindAllString(text[view.Korean], -1), place.FindAllString(text[view.English], -1)
		slices.Sort(ko)
		slices.Sort(en)
		if !slices.Equal(slices.Compact(ko), slices.Compact(en)) {
			t.Errorf("%s: places differ: ko %v, en %v", key, ko, en)
		}
	}
}

// The pages and the client name keys as T(…, "key"), t("key") and
// data-t="key"; each must exist, and each message must be used somewhere.
func TestKeysInUse(t *testing.T) {
	use := regexp.MustCompile(`["'` + "`" + `]([a-z0-9]+(?:\.[a-zA-Z0-9-]+)+)["'` + "`" + `]`)
	call := regexp.MustCompile(`\b(?:t|T|Text|@text|msg)\((?:p, |lang, |p\.Lang, )?"([^"]+)"`)
	used := map[string]bool{}
	var files int
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "node_modules" || d.Name() == "static" || d.Name() == "gen") {
			return filepath.SkipDir
		}
		switch filepath.Ext(path) {
		case ".templ", ".ts", ".tsx", ".go":
		default:
			return nil
		}
		if strings.HasSuffix(path, "_templ.go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		files++
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range call.FindAllStringSubmatch(string(b), -1) {
			if _, ok := table()[m[1]]; !ok && strings.Contains(m[1], ".") && !strings.HasSuffix(m[1], ".") {
				t.Errorf("%s uses the message %q, which is not in messages.json", path, m[1])
			}
		}
		for _, m := range use.FindAllStringSubmatch(string(b), -1) {
			used[m[1]] = true
		}
		// Keys that are put together: "phase." + phase.
		for _, m := range regexp.MustCompile("[\"'`]([a-z.]+\\.)(?:[\"']|\\$\\{)").FindAllStringSubmatch(string(b), -1) {
			for key := range table() {
				if strings.HasPrefix(key, m[1]) {
					used[key] = true
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 5 {
		t.Fatalf("only %d files were read", files)
	}
	for key := range table() {
		if !used[key] {
			t.Errorf("the message %q is used nowhere", key)
		}
	}
}

func TestChoose(t *testing.T) {
	for _, c := range []struct {
		cookie, accept string
		want           view.Lang
	}{
		{"", "", view.Korean},
		{"en", "ko", view.English},
		{"xx", "en-GB,ko;q=0.5", view.English},
		{"", "fr, de;q=0.8", view.Korean},
		{"", "fr, ko-KR;q=0.8, en;q=0.7", view.Korean},
	} {
		if got := Choose(c.cookie, c.accept); got != c.want {
			t.Errorf("Choose(%q, %q) = %q, want %q", c.cookie, c.accept, got, c.want)
		}
	}
}

func TestT(t *testing.T) {
	if got := T(view.English, "task.number", "n", 7); !strings.Contains(got, "7") || strings.Contains(got, "{") {
		t.Errorf("T did not put the number into %q", got)
	}
}
