package terminal

import "bytes"

// ScrollbackBytes bounds what a terminal remembers of its output: about 3,000
// full lines, enough to come back to after a reconnect.
const ScrollbackBytes = 256 << 10

// scrollback is a bounded window over the bytes that a shell wrote, counted
// from its start. The zero value is empty. Not safe for concurrent use.
type scrollback struct {
	buf   []byte
	start int64 // offset of buf[0]
}

// end is the offset of the next byte to be written.
func (s *scrollback) end() int64 { return s.start + int64(len(s.buf)) }

// write appends p and forgets the oldest bytes beyond the bound, a quarter of
// the window at a time, so that a chatty shell does not move memory with each
// write. The window starts at a line's start where it can, because half an
// escape sequence or half a Hangul syllable would garble the first line.
func (s *scrollback) write(p []byte) {
	s.buf = append(s.buf, p...)
	if len(s.buf) <= ScrollbackBytes {
		return
	}
	cut := len(s.buf) - ScrollbackBytes*3/4
	if nl := bytes.IndexByte(s.buf[cut:], '\n'); nl >= 0 && nl < 4096 {
		cut += nl + 1
	}
	n := copy(s.buf, s.buf[cut:])
	s.buf = s.buf[:n]
	s.start += int64(cut)
}

// from returns a copy of at most limit bytes from offset on, and the offset of
// the first of them: greater than asked where older bytes are forgotten, and
// the end where the offset lies in the future.
func (s *scrollback) from(offset int64, limit int) ([]byte, int64) {
	offset = min(max(offset, s.start), s.end())
	p := s.buf[offset-s.start:]
	return bytes.Clone(p[:min(len(p), limit)]), offset
}
