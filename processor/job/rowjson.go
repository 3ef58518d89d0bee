package job

import (
	"strconv"
	"time"

	"github.com/watershed-db/watershed/crdt"
)

// labels are the names of a row's members as JSON, each with its colon.
type labels struct{ keys, values [][]byte }

func (j *Job) makeLabels() {
	label := func(name string) []byte { return append(crdt.AppendQuoted(nil, name), ':') }
	for _, name := range j.KeyNames {
		j.labels.keys = append(j.labels.keys, label(name))
	}
	for _, a := range j.Aggregates {
		j.labels.values = append(j.labels.values, label(a.Name))
	}
	for _, d := range j.Derived {
		j.labels.values = append(j.labels.values, label(d.Name))
	}
}

// AppendRow appends r as one JSON object: its window, key, aggregates and derived values, and where asked for, its
// revision and whether it is complete.
func (j *Job) AppendRow(b []byte, r *Row, revision bool) []byte {
	b = appendBounds(b, r)
	b = append(b, `,"key":`...)
	b = j.AppendKey(b, r.KeyValues)
	for i, v := range r.Values {
		b = append(b, ',')
		b = append(b, j.labels.values[i]...)
		b = v.AppendJSON(b)
	}
	if revision {
		b = append(b, `,"revision":`...)
		b = strconv.AppendUint(b, r.Revision, 10)
		b = append(b, `,"complete":`...)
		b = strconv.AppendBool(b, r.Complete)
	}
	return append(b, '}')
}

// AppendRetraction appends the JSON object that takes back a row: its window, key, and the revision that caused it.
func (j *Job) AppendRetraction(b []byte, r *Row) []byte {
	b = appendBounds(b, r)
	b = append(b, `,"key":`...)
	b = j.AppendKey(b, r.KeyValues)
	b = append(b, `,"revision":`...)
	b = strconv.AppendUint(b, r.Revision, 10)
	return append(b, `,"retracted":true}`...)
}

// AppendKey appends a row's key as a JSON object: its members in declared order.
func (j *Job) AppendKey(b []byte, key []crdt.Value) []byte {
	b = append(b, '{')
	for i, v := range key {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, j.labels.keys[i]...)
		b = v.AppendJSON(b)
	}
	return append(b, '}')
}

// DecodeKey returns the values of an encoded key, in the order of KeyNames. It fails with crdt.ErrKey.
func (j *Job) DecodeKey(key []byte) ([]crdt.Value, error) {
	values := make([]crdt.Value, len(j.KeyNames))
	var err error
	for i := range values {
		if values[i], key, err = crdt.CutKey(key); err != nil {
			return nil, err
		}
	}
	if len(key) > 0 {
		return nil, crdt.ErrKey
	}
	return values, nil
}

func appendBounds(b []byte, r *Row) []byte {
	if r.Global() {
		return append(b, `{"window_start":null,"window_end":null`...)
	}
	b = append(b, `{"window_start":"`...)
	b = appendTime(b, r.Start)
	b = append(b, `","window_end":"`...)
	b = appendTime(b, r.End)
	return append(b, '"')
}

// appendTime appends ms as RFC 3339 in UTC, with milliseconds only where they are not zero.
func appendTime(b []byte, ms int64) []byte {
	layout := "2006-01-02T15:04:05Z"
	if ms%1000 != 0 {
		layout = "2006-01-02T15:04:05.000Z"
	}
	return time.UnixMilli(ms).UTC().AppendFormat(b, layout)
}
