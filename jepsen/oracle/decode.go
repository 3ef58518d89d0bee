package oracle

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// decode reads a record and returns what finds its fields by name.
func decode(in *source, header []string, value []byte) (func(string) Value, error) {
	if !utf8.Valid(value) {
		return nil, errors.New("invalid UTF-8")
	}
	if in.format == "csv" {
		return decodeCSV(in, header, value)
	}
	if !json.Valid(value) {
		return nil, errors.New("invalid JSON")
	}
	if err := pairedSurrogates(value); err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(value))
	dec.UseNumber()
	top, err := decodeJSON(dec)
	if err != nil {
		return nil, err
	}
	if top.fields == nil {
		return nil, errors.New("not an object")
	}
	return func(name string) Value {
		v := top
		for _, step := range strings.Split(name, ".") {
			inner, ok := v.fields[step]
			if !ok {
				return Value{Kind: Absent}
			}
			v = inner
		}
		return v
	}, nil
}

// decodeJSON reads the next value; a member name that comes twice in one object is an error.
func decodeJSON(dec *json.Decoder) (Value, error) {
	tok, err := dec.Token()
	if err != nil {
		return Value{}, err
	}
	switch t := tok.(type) {
	case nil:
		return Value{Kind: Null}, nil
	case bool:
		return MakeBool(t), nil
	case string:
		return MakeText(t), nil
	case json.Number:
		return parseNumber(t.String()), nil
	case json.Delim:
		v := Value{Kind: Other}
		if t == '{' {
			v.fields = map[string]Value{}
		}
		for dec.More() {
			if err := decodeMember(dec, v.fields); err != nil {
				return Value{}, err
			}
		}
		_, err := dec.Token()
		return v, err
	}
	return Value{}, fmt.Errorf("unexpected token %v", tok)
}

// decodeMember reads a member of an object into fields, or, where fields is nil, an element of an array.
func decodeMember(dec *json.Decoder, fields map[string]Value) error {
	if fields == nil {
		_, err := decodeJSON(dec)
		return err
	}
	name, err := dec.Token()
	if err != nil {
		return err
	}
	if _, twice := fields[name.(string)]; twice {
		return fmt.Errorf("duplicate member %q", name)
	}
	fields[name.(string)], err = decodeJSON(dec)
	return err
}

// pairedSurrogates refuses a \u escape of half a surrogate pair, which stands for no character. The text is valid JSON,
// so a backslash stands only inside a string.
func pairedSurrogates(text []byte) error {
	unit := func(i int) (uint64, bool) {
		if i+6 > len(text) || text[i] != '\\' || text[i+1] != 'u' {
			return 0, false
		}
		u, err := strconv.ParseUint(string(text[i+2:i+6]), 16, 32)
		return u, err == nil
	}
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			continue
		}
		u, isUnit := unit(i)
		switch {
		case !isUnit:
			i++
		case u < 0xD800 || u > 0xDFFF:
			i += 5
		default:
			low, ok := unit(i + 6)
			if u > 0xDBFF || !ok || low < 0xDC00 || low > 0xDFFF {
				return errors.New("unpaired surrogate")
			}
			i += 11
		}
	}
	return nil
}

func decodeCSV(in *source, header []string, line []byte) (func(string) Value, error) {
	if header == nil {
		header = in.columns
	}
	cells, err := csv.NewReader(bytes.NewReader(line)).Read()
	if err != nil {
		return nil, err
	}
	if len(cells) != len(header) {
		return nil, fmt.Errorf("%d cells under %d columns", len(cells), len(header))
	}
	return func(name string) Value {
		for i, column := range header {
			if column == name {
				return typed(in.types[name], cells[i])
			}
		}
		return Value{Kind: Absent}
	}, nil
}

// typed reads a CSV cell as its column's declared type.
func typed(columnType, cell string) Value {
	if cell == "" {
		return Value{Kind: Null}
	}
	switch columnType {
	case "int":
		v := parseNumber(cell)
		if v.Int == nil {
			return Value{Kind: Bad}
		}
		return v
	case "float":
		v := parseNumber(cell)
		if v.Kind == Number && v.Int != nil {
			f, err := strconv.ParseFloat(cell, 64)
			if err != nil {
				return Value{Kind: Bad}
			}
			return MakeFloat(f)
		}
		return v
	case "bool":
		if cell != "true" && cell != "false" {
			return Value{Kind: Bad}
		}
		return MakeBool(cell == "true")
	}
	return Value{Kind: Text, Text: cell, loose: columnType == ""}
}

// when is the event time that a record's time field gives, in whole milliseconds since the epoch, cut downwards.
func (in *source) when(v Value) (int64, bool) {
	var at time.Time
	switch {
	case in.timeUnit != 0:
		if v = v.number(); v.Kind != Number {
			return 0, false
		}
		ms := v.written()
		ms.Mul(ms, big.NewRat(int64(in.timeUnit), int64(time.Millisecond)))
		whole := new(big.Int).Div(ms.Num(), ms.Denom())
		if !whole.IsInt64() {
			return 0, false
		}
		at = time.UnixMilli(whole.Int64())
	case v.Kind != Text:
		return 0, false
	default:
		parsed, err := time.ParseInLocation(in.timeLayout, v.Text, in.timeZone)
		if err != nil {
			return 0, false
		}
		at = parsed
	}
	if y := at.UTC().Year(); y < 1 || y > 9999 {
		return 0, false
	}
	return at.UnixMilli(), true
}
