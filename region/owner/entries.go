package owner

import (
	"errors"
	"fmt"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/failover/ownership"
)

// messageBytes is about how much payload one message carries.
const messageBytes = 1 << 20

// sendEntries sends entries with their payload, in as many messages as that takes: each part is what an owner may send.
func (l *leading) sendEntries(to crdt.RegionID, m ownership.Message) (err error) {
	snap, err := l.o.Replica.Snapshot()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, snap.Close()) }()
	whole := m.Write
	for from := whole.Prev; from.Position < whole.Last; {
		list, err := snap.OwnEntries(from.Position+1, whole.Last, messageBytes)
		if err != nil {
			return err
		}
		payloads := make(map[ownership.Position][]byte, len(list))
		for _, e := range list {
			payloads[e.Position] = e.Payload
		}
		part, entries := m, [][]byte{}
		part.Write.Prev, part.Write.Control, part.Write.Last = from, nil, from.Position
		control := whole.Control
		for p := from.Position + 1; p <= whole.Last; p++ {
			for len(control) > 0 && control[0].Mark.Position < p {
				control = control[1:]
			}
			if len(control) > 0 && control[0].Mark.Position == p {
				part.Write.Control, from = append(part.Write.Control, control[0]), control[0].Mark
			} else if e, ok := payloads[p]; ok {
				entries = append(entries, e)
			} else {
				break
			}
			from.Position, part.Write.Last = p, p
		}
		if part.Write.Last == part.Write.Prev.Position {
			return fmt.Errorf("the entry at %d is missing", from.Position+1)
		}
		l.o.Send(to, part, entries)
	}
	return nil
}
