package cli

import (
	"fmt"
	"strconv"
	"strings"
)

// bytesFlag is a size: a number with B, KiB, MiB or GiB.
type bytesFlag int64

var byteUnits = []struct {
	name string
	size int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// String prints the largest unit that fits without a rest.
func (b *bytesFlag) String() string {
	for _, u := range byteUnits {
		if n := int64(*b); n != 0 && n%u.size == 0 {
			return strconv.FormatInt(n/u.size, 10) + u.name
		}
	}
	return "0"
}

// Set reads a size.
func (b *bytesFlag) Set(s string) error {
	for _, u := range append(byteUnits, struct {
		name string
		size int64
	}{"", 1}) {
		digits, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || n > (1<<62)/u.size {
			break
		}
		*b = bytesFlag(n * u.size)
		return nil
	}
	return fmt.Errorf("%q is no size; a whole number with B, KiB, MiB or GiB is wanted, such as 512MiB", s)
}

// Type names the flag's value in the help.
func (b *bytesFlag) Type() string { return "size" }
