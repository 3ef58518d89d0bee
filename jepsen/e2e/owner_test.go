package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Ownership of two regions while records flow: handed over as planned, to a region that does not exist, and to one that is cut
// off, which leaves the owner as it is; then the owner region is killed, and the other one is made the owner by force. The lost
// one comes back as a new member. The rows in the sinks are those of a query, and each region has written its own epochs alone.
func TestOwnershipMoves(t *testing.T) {
	binary(t)
	var loads []*load
	for _, l := range []struct{ name, extra string }{{"wiki-tumbling", sinkPart}, {"rides-surge", ""}} {
		if made := newLoad(t, l.name, "", l.extra, east, west); made != nil {
			loads = append(loads, made)
		}
	}
	k := deal(t, loads, "--nodes", "1", "--shards", "2")
	const steps = 4
	k.owned(east, east, west)
	k.beside(0, steps, nil)
	k.beside(1, steps, func() { must(t, append([]string{"owner", "flip", "--to", west, "--all"}, k.endpoint(east)...)...) })
	k.owned(west, east, west)
	k.refused(append([]string{"owner", "flip", "--to", "mars", "--shard", "0"}, k.endpoint(east)...), `no region "mars"`)
	k.order("cut", east, west)
	k.apart(west, east)
	k.refused(append([]string{"owner", "flip", "--to", east, "--shard", "0"}, k.endpoint(west)...), "its owner goes on")
	k.order("heal", east, west)
	k.owned(west, east, west)
	k.refused(append([]string{"owner", "force", "--to", east, "--shard", "0", "--yes"}, k.endpoint(east)...), "nothing is to be forced")
	k.beside(2, steps, func() {
		k.killAll(west)
		await(t, settleWithin, east+" to be the owner by force", func() (bool, string) {
			r := watershed(t, nil, append([]string{"owner", "force", "--to", east, "--all", "--yes"}, k.endpoint(east)...)...)
			return r.status == 0, string(r.stderr)
		})
		k.restartAll(west)
	})
	k.owned(east, east, west)
	k.beside(3, steps, nil)
	k.check()
	k.checkOutputs()
	k.checkEpochs(loads[0].job, map[string]uint64{east: 1, west: 2})
}

// owned waits until regions agree on the owner of all shards, and that it may answer.
func (k *deck) owned(owner string, regions ...string) {
	k.t.Helper()
	await(k.t, settleWithin, owner+" to own all shards", func() (bool, string) {
		r := watershed(k.t, nil, append([]string{"owner", "show", "--output", "jsonl"}, k.endpoint(owner)...)...)
		if r.status != 0 {
			return false, string(r.stderr)
		}
		for _, line := range strings.Split(strings.TrimSpace(string(r.stdout)), "\n") {
			for _, region := range regions {
				if strings.Contains(line, fmt.Sprintf(`"region":%q,"owner"`, region)) &&
					!strings.Contains(line, fmt.Sprintf(`"region":%q,"owner":%q`, region, owner)) {
					return false, line
				}
			}
			if strings.Contains(line, fmt.Sprintf(`"region":%q,"owner"`, owner)) && !strings.Contains(line, `"serves":true`) {
				return false, line
			}
		}
		return true, ""
	})
}

// refused runs a command that fails and says why.
func (k *deck) refused(args []string, why string) {
	k.t.Helper()
	if r := watershed(k.t, nil, args...); r.status != 1 || !strings.Contains(string(r.stderr), why) {
		k.t.Errorf("%v ends with status %d: %s", args, r.status, r.stderr)
	}
}

// checkEpochs reads what each region emitted: all of it under epochs of its own member number.
func (k *deck) checkEpochs(job string, members map[string]uint64) {
	k.t.Helper()
	for region, member := range members {
		records := 0
		k.consume(region, settleWithin, "rows of "+region, func(rec *kgo.Record) (bool, string) {
			if e := k.parseEmitted(rec, job); e.epoch&0xffff != member {
				k.t.Errorf("%s has emitted a row with epoch %d@%d", region, e.epoch>>16, e.epoch&0xffff)
			}
			records++
			return records >= 100, fmt.Sprintf("%d rows", records)
		}, "e2e-rows")
	}
}
