package exercises

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"podlab/lab"
	"podlab/lab/check"
)

// TestReadme holds the authors' documentation to what there is.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range check.Functions() {
		if row := fmt.Sprintf("| `%s` | %s |", f.Signature, f.Means); !strings.Contains(string(text), row) {
			t.Errorf("README.md lacks the row\n%s", row)
		}
	}
	for _, k := range lab.EventKinds() {
		if !strings.Contains(string(text), "`"+string(k)+"`") {
			t.Errorf("README.md lacks the event kind %s", k)
		}
	}
}
