package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/vmihailenco/msgpack/v5"
	"github.com/vmihailenco/msgpack/v5/msgpcode"
)

// appendJSON reads one msgpack value and appends it as JSON. Maps keep the
// order of their keys, as Fluentd prints them.
func appendJSON(b []byte, dec *msgpack.Decoder, depth int) ([]byte, error) {
	if depth > maxDepth {
		return nil, errors.New("a record is nested too deeply")
	}
	if len(b) > maxChunk {
		return nil, fmt.Errorf("a record is longer than %d bytes", maxChunk)
	}
	code, err := dec.PeekCode()
	if err != nil {
		return nil, err
	}
	switch {
	case msgpcode.IsFixedMap(code) || code == msgpcode.Map16 || code == msgpcode.Map32:
		return appendMap(b, dec, depth)
	case msgpcode.IsFixedArray(code) || code == msgpcode.Array16 || code == msgpcode.Array32:
		return appendArray(b, dec, depth)
	case msgpcode.IsString(code) || msgpcode.IsBin(code):
		text, err := packedBytes(dec)
		if err != nil {
			return nil, err
		}
		return appendText(b, text)
	case msgpcode.IsExt(code):
		at, err := eventTime(dec)
		if err != nil {
			return nil, err
		}
		return strconv.AppendQuote(b, at.UTC().Format(timeFormat)), nil
	}
	v, err := dec.DecodeInterface()
	if err != nil {
		return nil, err
	}
	if f, ok := v.(float64); ok && (math.IsNaN(f) || math.IsInf(f, 0)) {
		return append(b, "null"...), nil
	}
	if f, ok := v.(float32); ok && (math.IsNaN(float64(f)) || math.IsInf(float64(f), 0)) {
		return append(b, "null"...), nil
	}
	text, err := json.Marshal(v)
	return append(b, text...), err
}

// appendText appends a string; bytes that are no UTF-8 become base64.
func appendText(b, text []byte) ([]byte, error) {
	s := string(text)
	if !utf8.Valid(text) {
		s = base64.StdEncoding.EncodeToString(text)
	}
	quoted, err := json.Marshal(s)
	return append(b, quoted...), err
}

func appendMap(b []byte, dec *msgpack.Decoder, depth int) ([]byte, error) {
	n, err := dec.DecodeMapLen()
	if err != nil {
		return nil, err
	}
	b = append(b, '{')
	for i := range n {
		if i > 0 {
			b = append(b, ',')
		}
		start := len(b)
		if b, err = appendJSON(b, dec, depth+1); err != nil {
			return nil, err
		}
		if b[start] != '"' { // JSON has string keys only
			b = append(b[:start], strconv.Quote(string(b[start:]))...)
		}
		b = append(b, ':')
		if b, err = appendJSON(b, dec, depth+1); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

func appendArray(b []byte, dec *msgpack.Decoder, depth int) ([]byte, error) {
	n, err := dec.DecodeArrayLen()
	if err != nil {
		return nil, err
	}
	b = append(b, '[')
	for i := range n {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = appendJSON(b, dec, depth+1); err != nil {
			return nil, err
		}
	}
	return append(b, ']'), nil
}
