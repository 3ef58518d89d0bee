package oracle

type windowKind int

const (
	tumbling windowKind = iota
	hopping
	session
	global
)

// window is a job's `window`, in milliseconds. For a session, size is the gap.
type window struct {
	kind        windowKind
	size, every int64
}

// span is a window's bounds: start is in it, end is not.
type span struct{ start, end int64 }

// spans enumerates the windows that hold t, oldest first; for a session it is the record's own.
func (w window) spans(t int64) []span {
	switch w.kind {
	case global:
		return []span{{}}
	case session:
		return []span{{t, t + w.size}}
	}
	step := w.size
	if w.kind == hopping {
		step = w.every
	}
	newest := t - ((t%step)+step)%step // the last multiple of step that is not after t
	var out []span
	for start := newest - w.size; start <= newest; start += step {
		if start <= t && t < start+w.size {
			out = append(out, span{start, start + w.size})
		}
	}
	return out
}
