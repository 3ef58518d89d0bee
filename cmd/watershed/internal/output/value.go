package output

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/watershed-db/watershed/crdt"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

// ErrRow marks a row that does not fit what was asked, or holds what no row can hold: the node that sent it has a bug.
var ErrRow = errors.New("malformed row")

// bigDigits bounds the digits of an integer beyond 64 bits.
const bigDigits = 4096

func toValue(v *watershedv1.Value) (crdt.Value, error) {
	switch k := v.GetKind().(type) {
	case *watershedv1.Value_Bool:
		return crdt.Bool(k.Bool), nil
	case *watershedv1.Value_Int:
		return crdt.Int(k.Int), nil
	case *watershedv1.Value_Float:
		if math.IsNaN(k.Float) || math.IsInf(k.Float, 0) {
			return crdt.Null(), fmt.Errorf("%w: a float of %v", ErrRow, k.Float)
		}
		return crdt.Float(k.Float), nil
	case *watershedv1.Value_Text:
		return crdt.Text(k.Text), nil
	case *watershedv1.Value_Big:
		if !digits(k.Big) {
			return crdt.Null(), fmt.Errorf("%w: an integer of %.20q", ErrRow, k.Big)
		}
		return crdt.Big(k.Big), nil
	}
	return crdt.Null(), nil
}

func digits(s string) bool {
	if len(s) > 1 && s[0] == '-' {
		s = s[1:]
	}
	if s == "" || s[0] == '0' || len(s) > bigDigits {
		return false
	}
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// Times outside these, in ms, are not in the years 1 to 9999: they stand for minus and plus infinity.
var (
	firstTime = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
	lastTime  = time.Date(9999, 12, 31, 23, 59, 59, 999_000_000, time.UTC).UnixMilli()
)

// Time returns ms as RFC 3339 in UTC, with milliseconds only where they are not zero; "" before the year 1, where there
// is no time yet, and infinity after the year 9999.
func Time(ms int64) string {
	switch {
	case ms < firstTime:
		return ""
	case ms > lastTime:
		return "infinity"
	}
	layout := "2006-01-02T15:04:05Z"
	if ms%1000 != 0 {
		layout = "2006-01-02T15:04:05.000Z"
	}
	return time.UnixMilli(ms).UTC().Format(layout)
}

// TimeOrNull is Time as a member of a JSON object, which is null where there is no time yet.
func TimeOrNull(ms int64) *string {
	s := Time(ms)
	if s == "" {
		return nil
	}
	return &s
}

// Value returns a value as JSON. It fails with ErrRow where it is none.
func Value(v *watershedv1.Value) (json.RawMessage, error) {
	x, err := toValue(v)
	if err != nil {
		return nil, err
	}
	return x.AppendJSON(nil), nil
}

// Cell returns a value as a table shows it. It fails with ErrRow where it is none.
func Cell(v *watershedv1.Value) (string, error) {
	x, err := toValue(v)
	if err != nil {
		return "", err
	}
	return cell(x, false), nil
}
