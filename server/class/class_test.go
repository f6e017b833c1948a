package class

import (
	"errors"
	"strings"
	"testing"
	"time"

	"podlab/lab"
)

func TestCleanName(t *testing.T) {
	for in, want := range map[string]string{
		"김하늘": "김하늘", "\u1112\u1161\u1102\u1173\u11af": "하늘", "  Ada   Lovelace ": "Ada Lovelace", "O'Brien-Müller 2": "O'Brien-Müller 2",
		"한 글": "한 글", strings.Repeat("가", 64): strings.Repeat("가", 64),
	} {
		if got, err := CleanName(in); err != nil || got != want {
			t.Errorf("CleanName(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for in, says := range map[string]string{
		"": "empty", " \t ": "empty", strings.Repeat("가", 65): "at most 64", "a\xff": "UTF-8", "a\ufffd": "UTF-8",
		"a\u202eb": "U+202E", "a\u0000b": "U+0000", "a\u200bb": "U+200B", "---": "neither",
	} {
		_, err := CleanName(in)
		e, ok := errors.AsType[*lab.Error](err)
		if !ok || e.Code != lab.CodeInvalid || e.Field != "name" || !strings.Contains(e.Message, says) {
			t.Errorf("CleanName(%q): %v; want %q", in, err, says)
		}
	}
}

func TestNamesThatReadAlikeAreOne(t *testing.T) {
	for _, pair := range [][2]string{{"Ada", "ADA"}, {"Ａｄａ", "ada"}, {"하늘", "\u1112\u1161\u1102\u1173\u11af"}} {
		if fold(pair[0]) != fold(pair[1]) {
			t.Errorf("%q and %q fold to %q and %q", pair[0], pair[1], fold(pair[0]), fold(pair[1]))
		}
	}
	if fold("하늘") == fold("하눌") {
		t.Error("two names are one")
	}
}

func TestCodesAsPeopleTypeThem(t *testing.T) {
	seen := map[string]bool{}
	for range 200 {
		code := newCode()
		if len(code) != 9 || code[4] != '-' || seen[code] || strings.ContainsAny(code, "0O1ILUV") {
			t.Fatalf("code %q", code)
		}
		seen[code] = true
		for _, typed := range []string{code, strings.ToLower(code), strings.ReplaceAll(code, "-", ""), " " + strings.ReplaceAll(code, "-", " - ") + "\n"} {
			if got := cleanCode(typed); got != code {
				t.Errorf("cleanCode(%q) = %q; want %q", typed, got, code)
			}
		}
	}
	for _, wrong := range []string{"", "ABCD", "ABCD-EFGHJ", strings.Repeat("A", 100), "' OR 1=1 --"} {
		if got := cleanCode(wrong); got != "" {
			t.Errorf("cleanCode(%q) = %q", wrong, got)
		}
	}
}

func TestTheLimiterCountsFailuresByNetwork(t *testing.T) {
	l, now := newLimiter(), time.Now()
	for range failuresPerAddress {
		if l.blocked("2001:db8::1", now) > 0 {
			t.Fatal("blocked too early")
		}
		l.failed("2001:db8::1", now)
	}
	for addr, want := range map[string]bool{"2001:db8::1": true, "2001:db8::ffff": true, "2001:db8:0:1::1": false, "192.0.2.1": false} {
		if got := l.blocked(addr, now) > 0; got != want {
			t.Errorf("%s is blocked: %v; want %v", addr, got, want)
		}
	}
	if wait := l.blocked("2001:db8::1", now); wait > failureWindow {
		t.Errorf("must wait %s", wait)
	}
	if l.blocked("2001:db8::1", now.Add(failureWindow)) > 0 {
		t.Error("still blocked a minute later")
	}
}
