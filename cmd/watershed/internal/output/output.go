// Package output prints what commands ask for: rows as JSON lines or in a table, and objects.
package output

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// Format is how a command prints.
type Format string

// The formats.
const (
	Table Format = "table" // for people
	JSON  Format = "json"  // one JSON value, indented
	Lines Format = "jsonl" // a JSON object a line
)

// ParseFormat reads the value of --output. Without one it is a table on a terminal, else JSON lines.
func ParseFormat(s string, stdout io.Writer) (Format, error) {
	switch f := Format(s); f {
	case Table, JSON, Lines:
		return f, nil
	case "":
		if file, ok := stdout.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
			return Table, nil
		}
		return Lines, nil
	}
	return "", fmt.Errorf("--output %q: want table, json or jsonl", s)
}

// Object prints v as one JSON value: on one line, or for JSON indented. It is not meant for Table.
func Object(w io.Writer, f Format, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	if f == JSON {
		e.SetIndent("", "  ")
	}
	return wrote(e.Encode(v))
}

// Objects prints a list: each object on a line of its own, or for JSON as an array. It is not meant for Table.
func Objects[T any](w io.Writer, f Format, list []T) error {
	if f == JSON {
		if list == nil {
			list = []T{}
		}
		return Object(w, f, list)
	}
	for _, v := range list {
		if err := Object(w, f, v); err != nil {
			return err
		}
	}
	return nil
}

func wrote(err error) error {
	if err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
