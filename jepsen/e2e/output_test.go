package e2e

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/watershed-db/watershed/jepsen/oracle"
)

// emitted is a row as a sink got it, of one identity the last by (epoch, revision, complete).
type emitted struct {
	row
	epoch uint64
	value string
}

// follows says whether e ranks above another row of its identity.
func (e emitted) follows(o emitted) bool {
	if e.epoch != o.epoch {
		return e.epoch > o.epoch
	}
	if e.revision != o.revision {
		return e.revision > o.revision
	}
	return e.complete && !o.complete
}

func header(rec *kgo.Record, name string) string {
	for _, h := range rec.Headers {
		if h.Key == name {
			return string(h.Value)
		}
	}
	return ""
}

// checkOutputs checks the topics of the loads that have some.
func (k *deck) checkOutputs() {
	k.t.Helper()
	for _, l := range k.loads {
		switch {
		case bytes.HasSuffix(l.file, []byte(sinkPart)):
			k.checkSink(l.job, "e2e-rows")
		case bytes.HasSuffix(l.file, []byte(sidePart)):
			k.checkAsides(l, "e2e-late", "e2e-implausible", "e2e-invalid")
		}
	}
}

// closed lists by identity the rows of closed windows, as a sink is to have them.
func (k *deck) closed(job string) map[string]string {
	k.t.Helper()
	answer, err := k.query(east, job, "--closed")
	if err != nil {
		k.t.Fatal(err)
	}
	rows := map[string]string{}
	for _, raw := range answer.Rows {
		r := parseRow(k.t, raw)
		if !r.complete {
			k.t.Errorf("a closed row is not complete: %s", raw)
		}
		rows[identity(r)] = fmt.Sprintf(`%s,"revision":%d,"complete":%t}`, strings.TrimSuffix(r.line, "}"), r.revision, r.complete)
	}
	return rows
}

// checkSink reads what the owner region emitted: of every row of a closed window the last that came is the one that a
// query gives, and no complete row is there beside. More windows may close meanwhile, when a source turns idle; and rows
// of open ones may be there that are not complete, when a region was out of reach.
func (k *deck) checkSink(job, topic string) {
	k.t.Helper()
	want := k.closed(job)
	if len(want) == 0 {
		k.t.Fatal("no window has closed")
	}
	last, matching, records := map[string]emitted{}, 0, 0
	k.consume(east, settleWithin, "all closed rows in "+topic, func(rec *kgo.Record) (bool, string) {
		records++
		e := k.parseEmitted(rec, job)
		id := identity(e.row)
		before, ok := last[id]
		if ok && before.follows(e) {
			return matching == len(want), fmt.Sprintf("%d of %d rows are there", matching, len(want))
		}
		if ok && before.value == want[id] {
			matching--
		}
		if e.value == want[id] {
			matching++
		}
		last[id] = e
		return matching == len(want), fmt.Sprintf("%d of %d rows are there", matching, len(want))
	}, topic)
	k.t.Logf("%d records in %s for %d closed rows", records, topic, len(want))
	now := k.closed(job)
	for id, e := range last {
		if now[id] != e.value && e.complete {
			k.t.Errorf("%s was emitted as complete; a query gives %q", e.value, now[id])
		}
	}
}

func identity(r row) string {
	var bounds string
	if i := strings.Index(r.line, `,"key":`); i >= 0 {
		bounds = r.line[:i]
	}
	return bounds + r.key
}

func (k *deck) parseEmitted(rec *kgo.Record, job string) emitted {
	k.t.Helper()
	e := emitted{row: parseRow(k.t, rec.Value), value: string(rec.Value)}
	if header(rec, "job") != job || len(header(rec, "generation")) != 32 {
		k.t.Errorf("headers %v, want those of job %s", rec.Headers, job)
	}
	var err error
	if e.epoch, err = strconv.ParseUint(header(rec, "epoch"), 10, 64); err != nil {
		k.t.Errorf("header epoch: %v", err)
	}
	if string(rec.Key) != e.key {
		k.t.Errorf("key %s of a row with key %s", rec.Key, e.key)
	}
	return e
}

// checkAsides reads the side outputs of both regions: every record that the oracle puts aside is there as it was, with
// its reason, and no other.
func (k *deck) checkAsides(l *load, topics ...string) {
	k.t.Helper()
	res, err := l.oracle.Run(l.logs)
	if err != nil {
		k.t.Fatal(err)
	}
	for _, region := range k.regions() {
		k.checkAside(l, region, res.Aside, topics)
	}
}

func (k *deck) checkAside(l *load, region string, aside []oracle.Aside, topics []string) {
	k.t.Helper()
	want := map[string][]byte{}
	for _, a := range aside {
		if a.Source.Region != region {
			continue
		}
		for _, p := range l.logs {
			if p.Region == region && p.Topic == a.Source.Topic && p.Number == a.Source.Partition {
				want[fmt.Sprintf("%s %d %d", a.Reason, p.Number, a.Offset)] = p.Records[a.Offset].Value
			}
		}
	}
	if len(want) == 0 {
		k.t.Fatalf("%s puts nothing aside in %s", l.job, region)
	}
	seen := map[string]bool{}
	k.consume(region, settleWithin, "the side outputs of "+region, func(rec *kgo.Record) (bool, string) {
		reason, _, _ := strings.Cut(header(rec, "reason"), ":")
		source := header(rec, "source")
		partition := -1
		for _, p := range l.logs {
			if strings.Contains(source, fmt.Sprintf("%s/%d", l.topics[p.Topic], p.Number)) {
				partition = p.Number
			}
		}
		id := fmt.Sprintf("%s %d %s", reason, partition, header(rec, "offset"))
		switch value, ok := want[id]; {
		case !ok:
			k.t.Errorf("%s (source %q) is aside and should not be", id, source)
		case !bytes.Equal(value, rec.Value):
			k.t.Errorf("%s holds %q, not %q", id, rec.Value, value)
		case !strings.HasSuffix(rec.Topic, reason):
			k.t.Errorf("%s is in %s", id, rec.Topic)
		}
		seen[id] = true
		return len(seen) == len(want), fmt.Sprintf("%d of %d records are there", len(seen), len(want))
	}, topics...)
}
