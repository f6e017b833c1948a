package class

import (
	"crypto/rand"
	"fmt"
	"math/big"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"podlab/lab"
)

// maxName of a person, class or lab, in characters.
const maxName = 64

// CleanName brings a name into its one form: NFC (a keyboard may send Hangul
// as separate letters), no spaces at the ends, one between words. It refuses
// what does not show: control characters, direction marks and the like.
func CleanName(name string) (string, error) {
	// A JSON decoder puts U+FFFD in the place of what is not UTF-8.
	if !utf8.ValidString(name) || strings.ContainsRune(name, utf8.RuneError) {
		return "", nameError("is not valid UTF-8")
	}
	name = strings.Join(strings.Fields(norm.NFC.String(name)), " ")
	n := utf8.RuneCountInString(name)
	switch {
	case n == 0:
		return "", nameError("is empty")
	case n > maxName:
		return "", nameError(fmt.Sprintf("has %d characters; at most %d are allowed", n, maxName))
	}
	visible := false
	for _, r := range name {
		if r != ' ' && !unicode.IsGraphic(r) {
			return "", nameError(fmt.Sprintf("contains the character %U, which cannot be seen", r))
		}
		visible = visible || unicode.In(r, unicode.L, unicode.N)
	}
	if !visible {
		return "", nameError("has neither a letter nor a digit")
	}
	return name, nil
}

func nameError(what string) error {
	return &lab.Error{Code: lab.CodeInvalid, Field: "name", Message: "the name " + what}
}

// fold makes the form in which names are compared: without case, and with
// compatible forms (full-width letters) made equal.
func fold(name string) string {
	return norm.NFC.String(strings.ToLower(strings.ToUpper(norm.NFKC.String(name))))
}

// codeLetters leave out those that look alike on a projector: 0 O 1 I L U V.
const codeLetters = "23456789ABCDEFGHJKMNPQRSTWXYZ"

// codeLength gives 29^8, about 5e11, codes; wrong ones are rate-limited.
const codeLength = 8

// newCode makes a class code, written in two groups: "K7WM-3XQA".
func newCode() string {
	var b strings.Builder
	for i := range codeLength {
		if i == codeLength/2 {
			b.WriteByte('-')
		}
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(codeLetters))))
		if err != nil {
			panic(err) // crypto/rand never fails
		}
		b.WriteByte(codeLetters[n.Int64()])
	}
	return b.String()
}

// cleanCode takes a code as people type it: small letters, no hyphen, spaces.
func cleanCode(code string) string {
	if len(code) > 64 {
		return ""
	}
	var b strings.Builder
	for _, r := range strings.ToUpper(norm.NFKC.String(code)) {
		if strings.ContainsRune(codeLetters, r) {
			b.WriteRune(r)
		}
	}
	s := b.String()
	if len(s) != codeLength {
		return ""
	}
	return s[:codeLength/2] + "-" + s[codeLength/2:]
}
