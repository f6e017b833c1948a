package main

import (
	"fmt"
	"strconv"
	"strings"
)

// config is a configuration file, read.
type config struct {
	Sources []source
	Matches []string // patterns whose records go to standard output
}

// source is a forward input.
type source struct {
	Bind string
	Port int
}

// parseConfig reads Fluentd's configuration syntax: directives in angle
// brackets, a parameter a line, # comments.
func parseConfig(text string) (config, error) {
	var cfg config
	var open, arg string
	params := map[string]string{}
	for n, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		bad := func(format string, args ...any) (config, error) {
			return config{}, fmt.Errorf("line %d: %s", n+1, fmt.Sprintf(format, args...))
		}
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "</"):
			if line != "</"+open+">" || open == "" {
				return bad("unmatched end tag %s", line)
			}
			if err := cfg.add(open, arg, params); err != nil {
				return bad("%v", err)
			}
			open, params = "", map[string]string{}
		case strings.HasPrefix(line, "<"):
			name, rest, _ := strings.Cut(strings.Trim(line, "<>"), " ")
			if open != "" || !strings.HasSuffix(line, ">") {
				return bad("unexpected %s", line)
			}
			open, arg = name, strings.TrimSpace(rest)
		case open == "":
			return bad("parameter outside of a directive: %s", line)
		default:
			key, value, _ := strings.Cut(line, " ")
			params[key] = strings.Trim(strings.TrimSpace(value), `"'`)
		}
	}
	if open != "" {
		return config{}, fmt.Errorf("<%s> is not ended", open)
	}
	return cfg, nil
}

// add takes one directive.
func (c *config) add(name, arg string, params map[string]string) error {
	kind := params["@type"]
	switch name {
	case "source":
		if kind != "forward" {
			return fmt.Errorf("unknown input plugin %q; there is forward", kind)
		}
		s := source{Bind: "0.0.0.0", Port: 24224}
		for key, value := range params {
			switch key {
			case "bind":
				s.Bind = value
			case "port":
				p, err := strconv.ParseUint(value, 10, 16)
				if err != nil {
					return fmt.Errorf("port: %q is not a port number", value)
				}
				s.Port = int(p)
			case "@type", "@id", "tag":
			default:
				return fmt.Errorf("unknown parameter %q of source forward; there are bind and port", key)
			}
		}
		c.Sources = append(c.Sources, s)
	case "match":
		if kind != "stdout" {
			return fmt.Errorf("unknown output plugin %q; there is stdout", kind)
		}
		if arg == "" {
			arg = "**"
		}
		c.Matches = append(c.Matches, strings.Fields(arg)...)
	case "system":
	default:
		return fmt.Errorf("unknown directive <%s>; there are source, match and system", name)
	}
	return nil
}

// matchAny says whether one of the patterns matches the tag.
func matchAny(patterns []string, tag string) bool {
	for _, p := range patterns {
		if matchParts(strings.Split(p, "."), strings.Split(tag, ".")) {
			return true
		}
	}
	return false
}

// matchParts matches by parts between dots: * is one part, ** any number.
func matchParts(pattern, tag []string) bool {
	if len(pattern) == 0 {
		return len(tag) == 0
	}
	if pattern[0] == "**" {
		for i := range len(tag) + 1 {
			if matchParts(pattern[1:], tag[i:]) {
				return true
			}
		}
		return false
	}
	return len(tag) > 0 && (pattern[0] == "*" || pattern[0] == tag[0]) && matchParts(pattern[1:], tag[1:])
}
