package memstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"time"
)

// The journal is a file of records, each
//
//	4 bytes  length of the body, little endian
//	4 bytes  CRC-32C of the body
//	body     version, expiry (Unix seconds, 0 never), flags, table, key, data;
//	         numbers as varints, strings with their length before them
//
// after a header that names the format. A record is appended with one write.
// When the agent dies in the middle of it, the torn record fails its length or
// sum at the next start and is cut off. Compaction writes the living objects
// to a second file and renames it over the first.
//
// The file is not synced: it must survive the agent, not the host.
const (
	journalMagic = "podlab journal 1\n"
	// Compact when the file is this many times the living bytes, and at least slack.
	compactRatio = 4
	compactSlack = 256 << 10
	// maxRecord bounds a record's length field, so that a torn one is seen at once.
	maxRecord = 16 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type record struct {
	rv      uint64
	table   string
	key     string
	data    []byte // nil: deleted
	expires time.Time
}

type journal struct {
	path string
	f    file
	size int64
	torn int64 // bytes that were cut off at the start
	next int64 // no compaction below this size
	buf  []byte
}

// file is what the journal writes to: an *os.File.
type file interface {
	io.WriteCloser
	Truncate(size int64) error
}

// openJournal reads the journal at path, gives every whole record to apply,
// cuts off a torn end and leaves the file open for appending.
func openJournal(path string, apply func(record)) (*journal, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot open journal: %w", err)
	}
	j := &journal{path: path, f: f}
	if err := j.load(f, apply); err != nil {
		_ = f.Close()
		return nil, err
	}
	return j, nil
}

func (j *journal) load(f *os.File, apply func(record)) error {
	data, err := io.ReadAll(f)
	if err != nil {
		return fmt.Errorf("cannot read journal %s: %w", j.path, err)
	}
	good := 0
	switch {
	case bytes.HasPrefix(data, []byte(journalMagic)):
		good = len(journalMagic)
	case bytes.HasPrefix([]byte(journalMagic), data): // new, or torn in the header
	default:
		return fmt.Errorf("cannot read journal %s: it is not a podlab journal", j.path)
	}
	for good > 0 {
		r, n, ok := decodeRecord(data[good:])
		if !ok {
			break
		}
		apply(r)
		good += n
	}
	j.torn = int64(len(data) - good)
	if err := f.Truncate(int64(good)); err != nil {
		return fmt.Errorf("cannot cut the torn end of journal %s: %w", j.path, err)
	}
	if good == 0 {
		n, err := f.WriteString(journalMagic)
		if err != nil {
			return fmt.Errorf("cannot write journal %s: %w", j.path, err)
		}
		good = n
	}
	j.size = int64(good)
	return nil
}

// append writes one record, or leaves the file as it was.
func (j *journal) append(r record) error {
	j.buf = appendRecord(j.buf[:0], r)
	n, err := j.f.Write(j.buf)
	if err != nil {
		err = fmt.Errorf("cannot write journal: %w", err)
		if n > 0 {
			err = errors.Join(err, j.f.Truncate(j.size))
		}
		return err
	}
	j.size += int64(n)
	if cap(j.buf) > 64<<10 {
		j.buf = nil
	}
	return nil
}

func (j *journal) wantsCompaction(living int) bool {
	return j.size > int64(living)*compactRatio+compactSlack && j.size >= j.next
}

func (j *journal) postpone() { j.next = j.size + compactSlack }

// compact replaces the file by one that holds only the given records.
func (j *journal) compact(rv uint64, living []record) error {
	tmp := j.path + ".new"
	f, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("cannot compact journal: %w", err)
	}
	buf := append([]byte(nil), journalMagic...)
	buf = appendRecord(buf, record{rv: rv})
	size := int64(0)
	for _, r := range living {
		if len(buf) > 64<<10 {
			n, err := f.Write(buf)
			if err != nil {
				return errors.Join(fmt.Errorf("cannot compact journal: %w", err), f.Close(), os.Remove(tmp))
			}
			size, buf = size+int64(n), buf[:0]
		}
		buf = appendRecord(buf, r)
	}
	n, err := f.Write(buf)
	if err == nil {
		err = os.Rename(tmp, j.path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("cannot compact journal: %w", err), f.Close(), os.Remove(tmp))
	}
	old := j.f
	j.f, j.size, j.next = f, size+int64(n), 0
	return old.Close()
}

func (j *journal) close() error { return j.f.Close() }

const (
	flagDeleted = 1 << iota
)

func appendRecord(b []byte, r record) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)
	b = binary.AppendUvarint(b, r.rv)
	var at, flags uint64
	if !r.expires.IsZero() {
		at = uint64(r.expires.Unix()) // a time after 1970
	}
	if r.data == nil {
		flags |= flagDeleted
	}
	b = binary.AppendUvarint(b, at)
	b = binary.AppendUvarint(b, flags)
	b = appendString(b, r.table)
	b = appendString(b, r.key)
	b = append(b, r.data...)
	body := b[start+8:]
	binary.LittleEndian.PutUint32(b[start:], uint32(len(body))) // at most ObjectBytes
	binary.LittleEndian.PutUint32(b[start+4:], crc32.Checksum(body, castagnoli))
	return b
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// decodeRecord reads the record at the head of b and returns its length.
func decodeRecord(b []byte) (record, int, bool) {
	if len(b) < 8 {
		return record{}, 0, false
	}
	n := binary.LittleEndian.Uint32(b)
	if n > maxRecord || uint64(len(b)-8) < uint64(n) {
		return record{}, 0, false
	}
	body := b[8 : 8+n]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(b[4:]) {
		return record{}, 0, false
	}
	d := fields{b: body}
	var r record
	r.rv = d.uvarint()
	if at := d.uvarint(); at != 0 {
		r.expires = time.Unix(int64(at), 0) // written from an int64
	}
	flags := d.uvarint()
	r.table = d.string()
	r.key = d.string()
	if flags&flagDeleted == 0 {
		r.data = bytes.Clone(d.b)
		if r.data == nil {
			r.data = []byte{}
		}
	}
	return r, 8 + int(n), !d.bad
}

// fields reads the parts of a record's body.
type fields struct {
	b   []byte
	bad bool
}

func (d *fields) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *fields) string() string {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.bad, d.b = true, nil
		return ""
	}
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}
