package ownership

// AppendTo appends the record's bytes: part of the state, and of every snapshot, of the region's Raft group.
func (r Record) AppendTo(b []byte) []byte {
	b = appendNumbers(append(b, Version), uint64(r.Self), uint64(r.Promised))
	return appendControls(appendNumbers(b, r.Base, r.Last, r.Confirmed), r.Control)
}

// DecodeRecord takes a record's bytes apart.
func DecodeRecord(b []byte) (Record, error) {
	d := open(b)
	r := Record{Self: d.member(), Promised: d.epoch(), Base: d.position(), Last: d.position(), Confirmed: d.position()}
	r.Control = d.controls(0, r.Last)
	if d.Err == nil && (r.Base > r.Last || r.Confirmed > r.Last || (len(r.Control) == 0) != (r.Last == 0)) {
		d.Fail("a log from %d to %d, confirmed to %d, with %d control entries", r.Base, r.Last, r.Confirmed, len(r.Control))
	}
	if d.Err == nil && len(r.Control) > 0 && r.Control[0].Mark.Position > r.Base {
		d.Fail("the epoch at %d is missing", r.Base)
	}
	if err := d.Done(); err != nil {
		return Record{}, err
	}
	return r, nil
}

// Encode returns the command's bytes, as the region's Raft group logs them.
func (c Command) Encode() []byte {
	b := append([]byte{Version}, byte(c.Kind))
	switch c.Kind {
	case Promise:
		b = appendNumbers(b, c.Epoch)
	case Append:
		b = appendWrite(b, c.Write)
	case Install:
		b = appendControls(appendMark(appendNumbers(b, c.Epoch), c.Mark), []Control{c.Control})
	}
	return b
}

// DecodeCommand takes a command's bytes apart.
func DecodeCommand(b []byte) (Command, error) {
	d := open(b)
	c := Command{Kind: CommandKind(d.Byte())}
	switch c.Kind {
	case Promise:
		c.Epoch = d.epoch()
	case Append:
		c.Write = d.write()
	case Install:
		c.Epoch, c.Mark = d.epoch(), d.mark()
		c.Control = d.stateControl(d.controls(0, c.Mark.Position), c.Mark, c.Epoch)
	default:
		d.Fail("command of kind %d", c.Kind)
	}
	if err := d.Done(); err != nil {
		return Command{}, err
	}
	return c, nil
}

// stateControl checks the one control entry that goes with a state at a mark.
func (r *reader) stateControl(list []Control, at Mark, e Epoch) Control {
	if r.Err == nil && (len(list) != 1 || list[0].Mark.Epoch != at.Epoch || at.Epoch > e) {
		r.Fail("a state at %v of epoch %v with %d control entries", at, e, len(list))
	}
	if r.Err != nil {
		return Control{}
	}
	return list[0]
}

const flagOK = 1

// AppendTo appends the message's bytes.
func (m Message) AppendTo(b []byte) []byte {
	b = append(b, Version, byte(m.Kind), bit(m.OK, flagOK))
	b = appendNumbers(appendNumbers(b, m.From, m.To), m.Epoch, m.Promised, m.Released)
	b = appendMark(appendNumbers(b, m.Number), m.Mark)
	switch m.Kind {
	case Entries:
		b = appendNumbers(appendWrite(b, m.Write), uint64(m.Stamp), m.Led)
	case Ack:
		b = appendNumbers(b, uint64(m.Write.Confirmed), uint64(m.Stamp), m.Led)
	case StateAt:
		b = appendControls(b, m.Write.Control)
	case Ask, Grant:
		b = appendNumbers(b, uint64(m.Stamp), uint64(m.Term), m.Led)
	}
	return b
}

// DecodeMessage takes a message's bytes apart.
func DecodeMessage(b []byte) (Message, error) {
	d := open(b)
	m := Message{Kind: Kind(d.Byte())}
	flags := d.Byte()
	if m.Kind == 0 || m.Kind > Removed || flags > flagOK {
		d.Fail("message of kind %d with flags %d", m.Kind, flags)
	}
	m.OK = flags == flagOK
	m.From, m.To = d.member(), d.member()
	m.Epoch, m.Promised, m.Released = d.epoch(), d.epoch(), d.epoch()
	m.Number, m.Mark = d.UvarintTo(1<<63-1), d.mark()
	switch m.Kind {
	case Entries:
		m.Write, m.Stamp, m.Led = d.write(), d.duration(1<<63-1), d.UvarintTo(1<<64-1)
	case Ack:
		m.Write.Confirmed, m.Stamp, m.Led = d.position(), d.duration(1<<63-1), d.UvarintTo(1<<64-1)
	case StateAt:
		m.Write.Control = d.controls(0, m.Mark.Position)
		d.stateControl(m.Write.Control, m.Mark, m.Epoch)
	case Ask, Grant:
		m.Stamp, m.Term, m.Led = d.duration(1<<63-1), d.duration(MaxLease), d.UvarintTo(1<<64-1)
	}
	if err := d.Done(); err != nil {
		return Message{}, err
	}
	return m, nil
}
