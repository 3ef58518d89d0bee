package file

import "bytes"

// scan looks for the end of one record, and keeps what it knows while more of the record is read. Its positions count
// from the record's beginning.
type scan struct {
	at       int  // everything before it has been looked at
	newlines int  // how many of it are newlines: of quoted fields
	quoted   bool // at lies in a quoted field, which
	open     int  // begins with the quote here,
	before   int  // behind so many newlines
}

// end returns where the newline stands that ends the record, or -1 if win does not reach there.
func (s *scan) end(win []byte, csv bool) int {
	line := -1 // where the first newline at or behind s.at stands, len(win) for none
	for {
		if s.quoted && !s.quotedField(win) {
			return -1
		}
		if line < s.at {
			line = len(win)
			if i := bytes.IndexByte(win[s.at:], '\n'); i >= 0 {
				line = s.at + i
			}
		}
		if csv {
			if q := bytes.IndexByte(win[s.at:line], '"'); q >= 0 {
				q += s.at
				s.at = q + 1
				if q == 0 || win[q-1] == ',' {
					s.quoted, s.open, s.before = true, q, s.newlines
				}
				continue
			}
		}
		s.at = line
		if line == len(win) {
			return -1
		}
		return line
	}
}

// quotedField steps behind the quote that closes the field, and returns false if win does not reach behind it.
func (s *scan) quotedField(win []byte) bool {
	for {
		q := bytes.IndexByte(win[s.at:], '"')
		field := win[s.at:]
		if q >= 0 {
			field = field[:q]
		}
		s.newlines += bytes.Count(field, newline)
		s.at += len(field)
		if s.at+1 >= len(win) {
			return false // no quote, or one of which it can't be told whether it is the first of two
		}
		if win[s.at+1] != '"' {
			s.at++
			s.quoted = false
			return true
		}
		s.at += 2
	}
}

var newline = []byte{'\n'}

// takeBack is called when win is all that the record can consist of, and holds no end of it. If a field's quote is still
// open and a newline behind it, that quote shall have been none, and it returns true: the record may end now. All runs
// of quotes behind it are even, so that none of them opens another field of this kind: nothing is looked at more than
// twice.
func (s *scan) takeBack(win []byte) bool {
	if s.quoted && s.at == len(win)-1 && win[s.at] == '"' {
		s.quoted = false // closed by the last byte
		s.at++
	}
	if !s.quoted || s.newlines == s.before {
		return false
	}
	s.at, s.newlines, s.quoted = s.open+1, s.before, false
	return true
}
