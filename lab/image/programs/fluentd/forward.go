package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/vmihailenco/msgpack/v5"
	"github.com/vmihailenco/msgpack/v5/msgpcode"
)

// Bounds of what a client may send.
const (
	maxChunk       = 16 << 20 // bytes of one packed chunk, after decompression
	maxConnections = 512
	maxDepth       = 64
)

// forward is one forward input: a TCP listener for records, and a UDP one for
// heartbeats on the same port.
type forward struct {
	out *output
	tcp net.Listener
	udp net.PacketConn
	wg  sync.WaitGroup

	done chan struct{} // closed by close

	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

func listen(src source, out *output) (*forward, error) {
	addr := net.JoinHostPort(src.Bind, strconv.Itoa(src.Port))
	tcp, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	udp, err := net.ListenPacket("udp", tcp.Addr().String())
	if err != nil {
		tcp.Close()
		return nil, err
	}
	f := &forward{out: out, tcp: tcp, udp: udp, done: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	f.wg.Go(f.accept)
	f.wg.Go(f.heartbeats)
	return f, nil
}

func (f *forward) close() {
	close(f.done)
	_ = f.tcp.Close()
	_ = f.udp.Close()
	f.mu.Lock()
	for c := range f.conns {
		c.Close()
	}
	f.mu.Unlock()
	f.wg.Wait()
}

// heartbeats answers each datagram with one, as in_forward does.
func (f *forward) heartbeats() {
	var buf [128]byte
	for {
		_, from, err := f.udp.ReadFrom(buf[:])
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			_, _ = f.udp.WriteTo([]byte{0}, from) // a lost heartbeat is the sender's to notice
		}
	}
}

func (f *forward) accept() {
	for {
		c, err := f.tcp.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			f.out.log("warn", "cannot accept: %v", err)
			select {
			case <-time.After(100 * time.Millisecond): // such as too many open files
				continue
			case <-f.done:
				return
			}
		}
		if !f.add(c) {
			f.out.log("warn", "too many connections, closing addr=%q", c.RemoteAddr())
			c.Close()
			continue
		}
		f.wg.Go(func() {
			defer f.remove(c)
			if err := f.serve(c); err != nil && !errors.Is(err, net.ErrClosed) {
				f.out.log("error", "unexpected error on reading data host=%q error=%q", c.RemoteAddr(), err)
			}
		})
	}
}

func (f *forward) add(c net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.conns) >= maxConnections {
		return false
	}
	f.conns[c] = struct{}{}
	return true
}

func (f *forward) remove(c net.Conn) {
	c.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.conns, c)
}

// serve reads messages until the client closes.
func (f *forward) serve(c io.ReadWriter) error {
	dec := msgpack.NewDecoder(bufio.NewReaderSize(c, 16<<10))
	for {
		ack, err := f.message(dec)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if ack != "" {
			b, err := msgpack.Marshal(map[string]string{"ack": ack})
			if err != nil {
				return err
			}
			if _, err := c.Write(b); err != nil {
				return err
			}
		}
	}
}

// entry is a record that was read.
type entry struct {
	at   time.Time
	json []byte
}

// message reads one message of any of the four modes, prints its records and
// returns the chunk to acknowledge, if the client asks for that.
//
//	Message                 [tag, time, record, option?]
//	Forward                 [tag, [[time, record], …], option?]
//	PackedForward           [tag, entries as one str or bin, option?]
//	CompressedPackedForward the same, gzip, with option "compressed"
func (f *forward) message(dec *msgpack.Decoder) (ack string, err error) {
	code, err := dec.PeekCode()
	if err != nil {
		return "", err
	}
	if code == msgpcode.Nil { // a heartbeat
		return "", dec.DecodeNil()
	}
	n, err := dec.DecodeArrayLen()
	if err != nil {
		return "", fmt.Errorf("a message is not an array: %w", err)
	}
	if n < 2 || n > 4 {
		return "", fmt.Errorf("a message has %d elements, not 2 to 4", n)
	}
	tag, err := dec.DecodeString()
	if err != nil {
		return "", notEnd(fmt.Errorf("the tag is not a string: %w", err))
	}
	if code, err = dec.PeekCode(); err != nil {
		return "", notEnd(err)
	}
	var entries []entry
	var packed []byte
	used := 2
	switch {
	case msgpcode.IsFixedArray(code) || code == msgpcode.Array16 || code == msgpcode.Array32:
		entries, err = forwardEntries(dec)
	case msgpcode.IsString(code) || msgpcode.IsBin(code):
		packed, err = packedBytes(dec)
	default:
		used = 3
		var e entry
		e, err = readEntry(dec)
		entries = []entry{e}
	}
	if err != nil {
		return "", notEnd(err)
	}
	opt, err := options(dec, n-used)
	if err != nil {
		return "", notEnd(err)
	}
	if packed != nil {
		if entries, err = unpack(packed, opt["compressed"]); err != nil {
			return "", notEnd(err)
		}
	}
	for _, e := range entries {
		f.out.record(e.at, tag, e.json)
	}
	return opt["chunk"], nil
}

// notEnd makes an end of the stream in the middle of a message an error.
func notEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func forwardEntries(dec *msgpack.Decoder) ([]entry, error) {
	n, err := dec.DecodeArrayLen()
	if err != nil {
		return nil, err
	}
	var out []entry
	for range n {
		e, err := arrayEntry(dec)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

func arrayEntry(dec *msgpack.Decoder) (entry, error) {
	n, err := dec.DecodeArrayLen()
	if err != nil {
		return entry{}, fmt.Errorf("an entry is not an array: %w", err)
	}
	if n != 2 {
		return entry{}, fmt.Errorf("an entry has %d elements, not a time and a record", n)
	}
	return readEntry(dec)
}

func readEntry(dec *msgpack.Decoder) (entry, error) {
	at, err := eventTime(dec)
	if err != nil {
		return entry{}, err
	}
	code, err := dec.PeekCode()
	if err != nil {
		return entry{}, err
	}
	if !msgpcode.IsFixedMap(code) && code != msgpcode.Map16 && code != msgpcode.Map32 {
		return entry{}, errors.New("a record is not a map")
	}
	json, err := appendJSON(nil, dec, 0)
	return entry{at, json}, err
}

// eventTime reads a time: seconds as a number, or EventTime, the extension
// type 0 of seconds and nanoseconds, 32 bits each.
func eventTime(dec *msgpack.Decoder) (time.Time, error) {
	code, err := dec.PeekCode()
	if err != nil {
		return time.Time{}, err
	}
	if !msgpcode.IsExt(code) {
		if code == msgpcode.Float || code == msgpcode.Double {
			s, err := dec.DecodeFloat64()
			return time.Unix(0, int64(s*float64(time.Second))), err
		}
		s, err := dec.DecodeInt64()
		if err != nil {
			err = fmt.Errorf("a time is neither a number nor an EventTime: %w", err)
		}
		return time.Unix(s, 0), err
	}
	kind, size, err := dec.DecodeExtHeader()
	if err != nil {
		return time.Time{}, err
	}
	if kind != 0 || size != 8 {
		return time.Time{}, fmt.Errorf("a time is of extension type %d with %d bytes, not an EventTime", kind, size)
	}
	var b [8]byte
	if err := dec.ReadFull(b[:]); err != nil {
		return time.Time{}, err
	}
	return time.Unix(int64(binary.BigEndian.Uint32(b[:4])), int64(binary.BigEndian.Uint32(b[4:]))), nil
}

// packedBytes reads the packed entries of a chunk.
func packedBytes(dec *msgpack.Decoder) ([]byte, error) {
	n, err := dec.DecodeBytesLen()
	if err != nil {
		return nil, err
	}
	if n > maxChunk {
		return nil, fmt.Errorf("a chunk has %d bytes, at most %d", n, maxChunk)
	}
	b := make([]byte, max(n, 0))
	return b, dec.ReadFull(b)
}

func unpack(packed []byte, compressed string) ([]entry, error) {
	var r io.Reader = bytes.NewReader(packed)
	switch compressed {
	case "", "text":
	case "gzip":
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, fmt.Errorf("a chunk is not gzip: %w", err)
		}
		r = io.LimitReader(z, maxChunk)
	default:
		return nil, fmt.Errorf("a chunk is compressed with %q, not gzip", compressed)
	}
	dec := msgpack.NewDecoder(bufio.NewReader(r))
	var out []entry
	for {
		if _, err := dec.PeekCode(); errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return nil, err
		}
		e, err := arrayEntry(dec)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
}

// options reads the rest of a message, of which the last element may be a map
// of options; those that are strings are returned.
func options(dec *msgpack.Decoder, rest int) (map[string]string, error) {
	out := map[string]string{}
	if rest < 0 || rest > 1 {
		return nil, fmt.Errorf("a message has %d elements too many", rest)
	}
	if rest == 0 {
		return out, nil
	}
	code, err := dec.PeekCode()
	if err != nil {
		return nil, err
	}
	if code == msgpcode.Nil {
		return out, dec.DecodeNil()
	}
	n, err := dec.DecodeMapLen()
	if err != nil {
		return nil, fmt.Errorf("the option is not a map: %w", err)
	}
	for range n {
		key, err := dec.DecodeString()
		if err != nil {
			return nil, fmt.Errorf("the option's key is not a string: %w", err)
		}
		code, err := dec.PeekCode()
		if err != nil {
			return nil, err
		}
		if !msgpcode.IsString(code) && !msgpcode.IsBin(code) {
			if err := dec.Skip(); err != nil {
				return nil, err
			}
			continue
		}
		if out[key], err = dec.DecodeString(); err != nil {
			return nil, err
		}
	}
	return out, nil
}
