package table

import (
	"fmt"
	"slices"
	"strings"

	"pgregory.net/rapid"
)

var allTypes = []Type{TypeCounter, TypeUpDown, TypeRegister, TypeSet, TypeLWWSet}

// read prints what a value reads as.
func read(v Value) string {
	switch v := v.(type) {
	case *Counter:
		return v.Total().String()
	case *Register:
		data, ok := v.Get()
		return fmt.Sprintf("%q %t", data, ok)
	case *Set:
		return fmt.Sprintf("%q", v.Elements())
	case *LWWSet:
		return fmt.Sprintf("%q", v.Elements())
	}
	panic("no value")
}

// oracle prints what a value that holds a set of operations must read as, from their definition.
func oracle(t Type, ops map[ID]*Op) string {
	sum, observed, last := int64(0), map[ID]bool{}, map[string]*Op{}
	for _, o := range ops {
		sum += o.Amount
		for _, id := range o.Observed {
			observed[id] = true
		}
		place := string(o.Data)
		if t == TypeRegister {
			place = ""
		}
		if last[place] == nil || last[place].Stamp().Compare(o.Stamp()) < 0 {
			last[place] = o
		}
	}
	var in []string
	switch t {
	case TypeCounter, TypeUpDown:
		return fmt.Sprint(sum)
	case TypeRegister:
		if o := last[""]; o != nil && o.Kind == Assign {
			return fmt.Sprintf("%q true", o.Data)
		}
		return `"" false`
	case TypeSet:
		for id, o := range ops {
			if o.Kind == Insert && !observed[id] {
				in = append(in, string(o.Data))
			}
		}
	case TypeLWWSet:
		for element, o := range last {
			if o.Kind == Insert {
				in = append(in, element)
			}
		}
	}
	slices.Sort(in)
	return fmt.Sprintf("%q", slices.Compact(in))
}

// history is all that sessions ever did on a shard: the operations on one key, and ids of those on others.
type history struct {
	of  Type
	ids []ID
	ops map[ID]*Op
}

// genHistory draws operations that pass Op.Validate.
func genHistory(of Type) *rapid.Generator[history] {
	return rapid.Custom(func(t *rapid.T) history {
		h := history{of: of, ops: map[ID]*Op{}}
		for n := range rapid.Uint64Range(0, 4).Draw(t, "sessions") {
			s := SessionID{Born: rapid.SampledFrom([]int64{0, 100, 200, 300}).Draw(t, "born"), Nonce: n}
			for i := range rapid.Uint64Range(0, 6).Draw(t, "operations") {
				id := ID{s, i + 1}
				h.ids = append(h.ids, id)
				if rapid.IntRange(0, 3).Draw(t, "other key") > 0 {
					h.ops[id] = genOp(of, id, h.ops).Draw(t, "op")
				}
			}
		}
		return h
	})
}

// genOp draws an operation that may have observed any of the given ones.
func genOp(of Type, id ID, before map[ID]*Op) *rapid.Generator[*Op] {
	return rapid.Custom(func(t *rapid.T) *Op {
		o := &Op{ID: id}
		if of.stamped() {
			millis := id.Session.Born + rapid.Int64Range(0, 200).Draw(t, "millis")
			o.Time = TimeAt(millis) + Time(rapid.Uint16Range(1, 2).Draw(t, "counter"))
		}
		switch of {
		case TypeCounter:
			o.Kind, o.Amount = Increment, rapid.Int64Range(0, 9).Draw(t, "amount")
		case TypeUpDown:
			o.Kind, o.Amount = Increment, rapid.OneOf(rapid.Int64Range(-2, 2), rapid.Int64Range(-1<<56, 1<<56)).Draw(t, "amount")
		case TypeRegister:
			if o.Kind = rapid.SampledFrom([]Kind{Assign, Clear}).Draw(t, "kind"); o.Kind == Assign {
				o.Data = []byte(rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "data"))
			}
		case TypeSet, TypeLWWSet:
			o.Kind = rapid.SampledFrom([]Kind{Insert, Remove}).Draw(t, "kind")
			o.Data = []byte(rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "data"))
		}
		if of == TypeSet {
			for id, other := range before {
				if other.Kind == Insert && string(other.Data) == string(o.Data) {
					o.Observed = append(o.Observed, id)
				}
			}
			slices.SortFunc(o.Observed, ID.Compare)
			few := rapid.Uint64().Draw(t, "observed")
			o.Observed = slices.DeleteFunc(o.Observed, func(id ID) bool { few >>= 1; return few&1 == 0 })
		}
		return o
	})
}

// replica is one copy: a value, the Sessions beside it, and what it holds, kept plainly.
type replica struct {
	value    Value
	sessions *Sessions
	held     map[ID]bool
	of       history
}

// genReplica draws a copy that holds part of a history, and all of it below its floor.
func (h history) genReplica() *rapid.Generator[replica] {
	return rapid.Custom(func(t *rapid.T) replica {
		floor := rapid.SampledFrom([]int64{0, 0, 100, 101, 200, 400}).Draw(t, "floor")
		var order []ID
		for _, id := range h.ids {
			if id.Session.Born < floor || rapid.Bool().Draw(t, "held") {
				order = append(order, id)
			}
		}
		return h.replica(t, rapid.Permutation(order).Draw(t, "order"), floor)
	})
}

// replica makes a copy out of ids in an order, with retries and foldings wherever t draws them.
func (h history) replica(t *rapid.T, order []ID, floor int64) replica {
	x := replica{New(h.of, 0), new(Sessions), map[ID]bool{}, h}
	below := 0
	for _, id := range order {
		if id.Session.Born < floor {
			below++
		}
	}
	for i, id := range order {
		x.take(id)
		if id.Session.Born < floor {
			below--
		}
		again := rapid.IntRange(0, 9).Draw(t, "then")
		if again < 2 {
			x.take(order[i*again/2])
		}
		if below == 0 && again%2 == 0 {
			x.sessions.Raise(floor)
		}
		if again > 6 {
			x.value.Fold(x.sessions)
		}
	}
	x.sessions.Raise(floor)
	x.value.Fold(x.sessions)
	return x
}

func (x *replica) take(id ID) {
	x.held[id] = true
	x.sessions.Add(id)
	if o := x.of.ops[id]; o != nil {
		x.value.Apply(o)
	}
}

// ops returns the operations that x holds.
func (x *replica) ops() map[ID]*Op {
	ops := map[ID]*Op{}
	for id := range x.held {
		if o := x.of.ops[id]; o != nil {
			ops[id] = o
		}
	}
	return ops
}

// clone copies through the encodings.
func (x *replica) clone() replica {
	v, err := Decode(x.of.of, x.value.Append(nil))
	if err != nil {
		panic(err)
	}
	s, err := DecodeSessions(x.sessions.Append(nil))
	if err != nil {
		panic(err)
	}
	held := map[ID]bool{}
	for id := range x.held {
		held[id] = true
	}
	return replica{v, s, held, x.of}
}

// join returns what x and y make together.
func (x replica) join(y replica) replica {
	z := x.clone()
	z.value.Join(y.value)
	z.sessions.Join(y.sessions)
	for id := range y.held {
		z.held[id] = true
	}
	return z
}

// bytes returns all that x would store.
func (x replica) bytes() string {
	return string(x.sessions.Append(nil)) + strings.Repeat("-", 8) + string(x.value.Append(nil))
}
