package main

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"
)

// ordered is a map that msgpack writes in the given order.
type ordered []string

func (o ordered) EncodeMsgpack(e *msgpack.Encoder) error {
	if err := e.EncodeMapLen(len(o) / 2); err != nil {
		return err
	}
	for _, s := range o {
		if err := e.EncodeString(s); err != nil {
			return err
		}
	}
	return nil
}

// eventStamp is an EventTime.
type eventStamp struct{ sec, nsec uint32 }

func (s eventStamp) EncodeMsgpack(e *msgpack.Encoder) error {
	if err := e.EncodeExtHeader(0, 8); err != nil {
		return err
	}
	_, err := e.Writer().Write(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, s.sec), s.nsec))
	return err
}

func pack(t *testing.T, values ...any) []byte {
	t.Helper()
	var b bytes.Buffer
	e := msgpack.NewEncoder(&b)
	for _, v := range values {
		if err := e.Encode(v); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func zip(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestModes(t *testing.T) {
	one := []any{1700000000, ordered{"b", "1", "a", "2"}}
	two := []any{eventStamp{1700000001, 5}, ordered{"log", "x"}}
	tests := []struct {
		name    string
		message []any
		want    string
	}{
		{"message", []any{"app.web", 1700000000, ordered{"b", "1", "a", "2"}}, `20.000000000 +0000 app.web: {"b":"1","a":"2"}`},
		{"event time", []any{"app.web", eventStamp{1700000000, 123}, ordered{}}, `20.000000123 +0000 app.web: {}`},
		{"forward", []any{"t", []any{one, two}}, `20.000000000 +0000 t: {"b":"1","a":"2"}` + "\n" + `21.000000005 +0000 t: {"log":"x"}`},
		{"packed", []any{"t", append(pack(t, one), pack(t, two)...)}, "t: "},
		{"packed as a string", []any{"t", string(pack(t, one))}, `t: {"b":"1","a":"2"}`},
		{"compressed", []any{"t", zip(t, pack(t, one, two)), ordered{"compressed", "gzip"}}, `21.000000005 +0000 t: {"log":"x"}`},
		{"nested", []any{"t", 0, map[string]any{"a": []any{1, -2, 1.5, true, nil, []byte{0xff}}}}, `t: {"a":[1,-2,1.5,true,null,"/w=="]}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, ack, err := exchange(t, pack(t, tt.message))
			if err != nil || ack != "" {
				t.Errorf("error %v, ack %q", err, ack)
			}
			for _, want := range strings.Split(tt.want, "\n") {
				if !strings.Contains(out, want) {
					t.Errorf("printed\n%swant\n%s", out, want)
				}
			}
		})
	}
}

// exchange sends bytes as a client does and returns what is printed and the
// chunk that is acknowledged.
func exchange(t *testing.T, sent []byte) (printed, ack string, err error) {
	t.Helper()
	var b bytes.Buffer
	f := &forward{out: &output{w: &b, now: time.Now, match: []string{"**"}}}
	client, server := net.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- f.serve(server)
		server.Close()
	}()
	go func() {
		// The server may refuse the rest of a bad message.
		_, _ = client.Write(sent)
		_ = client.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	}()
	var reply map[string]string
	if derr := msgpack.NewDecoder(client).Decode(&reply); derr == nil {
		ack = reply["ack"]
	}
	client.Close()
	err = <-done
	return b.String(), ack, err
}

func TestMain(m *testing.M) {
	time.Local = time.UTC
	m.Run()
}

func TestAck(t *testing.T) {
	message := []any{"t", []any{[]any{1, ordered{"a", "b"}}}, ordered{"chunk", "p8n9gmxTQVC8/nh2wlKKeQ=="}}
	out, ack, err := exchange(t, pack(t, message))
	if err != nil || ack != "p8n9gmxTQVC8/nh2wlKKeQ==" || !strings.Contains(out, `t: {"a":"b"}`) {
		t.Errorf("printed %q, ack %q, error %v", out, ack, err)
	}
}

func TestBadMessages(t *testing.T) {
	tests := []struct {
		name string
		sent []byte
		want string
	}{
		{"not an array", pack(t, "hello"), "not an array"},
		{"too short", pack(t, []any{"t"}), "1 elements"},
		{"tag", pack(t, []any{1, 2, ordered{}}), "tag is not a string"},
		{"record", pack(t, []any{"t", 1, "x"}), "record is not a map"},
		{"entry", pack(t, []any{"t", []any{[]any{1}}}), "entry has 1 elements"},
		{"cut off", pack(t, []any{"t", 1, ordered{"a", "b"}})[:6], "unexpected EOF"},
		{"not gzip", pack(t, []any{"t", []byte("abc"), ordered{"compressed", "gzip"}}), "not gzip"},
		{"a giant", []byte{0x92, 0xa1, 't', 0xc6, 0xff, 0xff, 0xff, 0xff}, "at most"},
		{"deep", append([]byte{0x93, 0xa1, 't', 0x01}, bytes.Repeat([]byte{0x81, 0xa1, 'a'}, 200)...), "nested too deeply"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, _, err := exchange(t, tt.sent)
			if err == nil || !strings.Contains(err.Error(), tt.want) || out != "" {
				t.Errorf("error %v, printed %q; want %s", err, out, tt.want)
			}
		})
	}
}

func TestListenTakesHeartbeatsAndNamesAPortInUse(t *testing.T) {
	var b bytes.Buffer
	out := &output{w: &b, now: time.Now}
	f, err := listen(source{Bind: "127.0.0.1"}, out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	addr := f.tcp.Addr().(*net.TCPAddr)
	c, err := net.Dial("udp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte{0}); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var reply [8]byte
	if n, err := c.Read(reply[:]); err != nil || n != 1 {
		t.Errorf("heartbeat: %d bytes, %v", n, err)
	}
	if _, err := listen(source{Bind: "127.0.0.1", Port: addr.Port}, out); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("second listen: %v", err)
	}
}

func TestConfig(t *testing.T) {
	cfg, err := parseConfig("# c\n<source>\n  @type forward\n  port 24225\n</source>\n<match app.** sys.*>\n @type stdout\n</match>\n")
	if err != nil || len(cfg.Sources) != 1 || cfg.Sources[0] != (source{"0.0.0.0", 24225}) {
		t.Fatalf("%+v, %v", cfg, err)
	}
	for tag, want := range map[string]bool{"app": true, "app.a.b": true, "sys.x": true, "sys": false, "sys.x.y": false, "other": false} {
		if got := matchAny(cfg.Matches, tag); got != want {
			t.Errorf("match %q = %v", tag, got)
		}
	}
	for text, want := range map[string]string{
		"<source>\n@type tail\n</source>":            `line 3: unknown input plugin "tail"`,
		"<source>\n@type forward\nport x\n</source>": `line 4: port: "x"`,
		"<source>\n@type forward\nprot 1\n</source>": `unknown parameter "prot"`,
		"<match>\n@type file\n</match>":              `unknown output plugin "file"`,
		"<source>\n@type forward\n":                  "not ended",
		"port 1\n":                                   "line 1: parameter outside",
		"<source>\n</match>":                         "line 2: unmatched end tag",
	} {
		if _, err := parseConfig(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %s", text, err, want)
		}
	}
}
