package log

import (
	"errors"
	"fmt"
	"testing"

	"github.com/watershed-db/watershed/crdt"
)

func TestHashCoversEveryPart(t *testing.T) {
	var h crdt.Hasher
	base := Record{Offset: 7, Timestamp: 1000, Key: []byte("k"), Value: []byte("v"),
		Headers: []crdt.Header{{Key: "a", Value: []byte("1")}}}
	want := base.Hash(&h)
	for name, change := range map[string]func(r *Record){
		"offset":       func(r *Record) { r.Offset++ },
		"timestamp":    func(r *Record) { r.Timestamp = NoTimestamp },
		"null key":     func(r *Record) { r.Key = nil },
		"empty key":    func(r *Record) { r.Key = []byte{} },
		"value":        func(r *Record) { r.Value = []byte("w") },
		"null value":   func(r *Record) { r.Value = nil },
		"header name":  func(r *Record) { r.Headers = []crdt.Header{{Key: "b", Value: []byte("1")}} },
		"header value": func(r *Record) { r.Headers = []crdt.Header{{Key: "a"}} },
		"no header":    func(r *Record) { r.Headers = nil },
	} {
		r := base.Clone()
		change(&r)
		if r.Hash(&h) == want {
			t.Errorf("%s: the hash did not change", name)
		}
	}
	mirrored := base.Clone()
	mirrored.Headers = append(mirrored.Headers, crdt.Header{Key: "watershed-origin", Value: []byte("us-east")})
	if mirrored.Hash(&h) != want {
		t.Error("a header of the mirror changed the hash")
	}
}

func TestCloneIsDeep(t *testing.T) {
	value, header := []byte("v"), []byte("h")
	r := Record{Key: []byte{}, Value: value, Headers: []crdt.Header{{Key: "a", Value: header}, {Key: "n"}}}
	c := r.Clone()
	value[0], header[0] = 'x', 'x'
	if string(c.Value) != "v" || string(c.Headers[0].Value) != "h" {
		t.Errorf("the clone shares bytes: %q %q", c.Value, c.Headers[0].Value)
	}
	if c.Key == nil || c.Headers[1].Value != nil {
		t.Error("the clone confuses null and empty")
	}
}

func TestUnfit(t *testing.T) {
	if !Unfit(fmt.Errorf("read rides/3: %w", ErrTruncated)) {
		t.Error("a cut log fits")
	}
	if Unfit(errors.New("broker down")) || Unfit(nil) {
		t.Error("a broker that is down is the log's fault")
	}
}
