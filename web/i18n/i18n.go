// Package i18n is the one table of messages of the pages and of the
// TypeScript client: messages.json, a key with its text in every language.
// The client's copy is generated from the same file (web/client/build.mjs).
//
// A text may hold named places: "{count} pods". The package is read-only
// after its initialisation and safe for concurrent use.
package i18n

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"podlab/web/view"
)

//go:embed messages.json
var raw []byte

// table is read when it is first asked for: the agent in each lab is the same
// program, and asks for none.
var table = sync.OnceValue(func() map[string]view.Text { return mustParse(raw) })

func mustParse(b []byte) map[string]view.Text {
	var t map[string]view.Text
	if err := json.Unmarshal(b, &t); err != nil {
		panic(fmt.Sprintf("cannot read web/i18n/messages.json: %v", err))
	}
	return t
}

// T returns the message of key in lang, with each {name} replaced by its
// value; pairs are name, value, name, value. An unknown key is shown as it
// is: a test sees to it that the pages use none.
func T(lang view.Lang, key string, pairs ...any) string {
	text, ok := table()[key]
	if !ok {
		return key
	}
	s := text.In(lang)
	for i := 0; i+1 < len(pairs); i += 2 {
		s = strings.ReplaceAll(s, "{"+fmt.Sprint(pairs[i])+"}", fmt.Sprint(pairs[i+1]))
	}
	return s
}

// Keys returns every key, sorted.
func Keys() []string {
	keys := make([]string, 0, len(table()))
	for k := range table() {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// Choose picks the language: the cookie's if it names one of ours, else the
// first of ours in the Accept-Language header, else Korean.
func Choose(cookie, accept string) view.Lang {
	switch l := view.Lang(cookie); l {
	case view.Korean, view.English:
		return l
	}
	for part := range strings.SplitSeq(accept, ",") {
		tag, _, _ := strings.Cut(strings.TrimSpace(part), ";")
		base, _, _ := strings.Cut(strings.ToLower(tag), "-")
		switch l := view.Lang(base); l {
		case view.Korean, view.English:
			return l
		}
	}
	return view.Korean
}
