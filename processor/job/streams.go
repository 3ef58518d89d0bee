package job

import "github.com/watershed-db/watershed/crdt"

// MergeStreams returns one stream in slot order over several, as the rows of a job need it over the groups of a shard.
// It keeps the streams and closes none of them.
func MergeStreams(streams ...Stream) Stream {
	if len(streams) == 1 {
		return streams[0]
	}
	return &merged{streams: streams, last: -1}
}

// merged looks at every stream for each step: there are as many as a deployment has regions.
type merged struct {
	streams []Stream
	live    []bool
	last    int // whose slot is the present one; -1 before the first
	err     error
}

// Next implements Stream.
func (m *merged) Next() bool {
	if m.err != nil {
		return false
	}
	if m.live == nil {
		m.live = make([]bool, len(m.streams))
		for i := range m.streams {
			m.advance(i)
		}
	} else if m.last >= 0 {
		m.advance(m.last)
	}
	m.last = -1
	if m.err != nil {
		return false
	}
	for i, s := range m.streams {
		if m.live[i] && (m.last < 0 || compareSlots(s.Slot(), m.streams[m.last].Slot()) < 0) {
			m.last = i
		}
	}
	return m.last >= 0
}

func (m *merged) advance(i int) {
	m.live[i] = m.streams[i].Next()
	if err := m.streams[i].Err(); err != nil && m.err == nil {
		m.err = err
	}
}

// Slot implements Stream.
func (m *merged) Slot() crdt.Slot { return m.streams[m.last].Slot() }

// Cell implements Stream.
func (m *merged) Cell() []byte { return m.streams[m.last].Cell() }

// Err implements Stream.
func (m *merged) Err() error { return m.err }
