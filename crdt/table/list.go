package table

import "slices"

// list is a map in order of its keys: values are read, joined and written in order far more often than anything is put in
// between.
type list[K interface{ Compare(K) int }, V any] []pair[K, V]

type pair[K, V any] struct {
	key   K
	value V
}

// find returns where key stands or would stand, and whether it is there.
func (l list[K, V]) find(key K) (int, bool) {
	from, to := 0, len(l)
	for from < to {
		middle := int(uint(from+to) / 2)
		switch c := l[middle].key.Compare(key); {
		case c == 0:
			return middle, true
		case c < 0:
			from = middle + 1
		default:
			to = middle
		}
	}
	return from, false
}

// get returns what key has, or a zero value.
func (l list[K, V]) get(key K) (value V, ok bool) {
	i, ok := l.find(key)
	if ok {
		value = l[i].value
	}
	return value, ok
}

func (l *list[K, V]) set(key K, value V) {
	i, ok := l.find(key)
	if ok {
		(*l)[i].value = value
		return
	}
	*l = slices.Insert(*l, i, pair[K, V]{key, value})
}

// filter keeps the pairs for which keep says so, which may change their values.
func (l *list[K, V]) filter(keep func(key K, value *V) bool) {
	kept := (*l)[:0]
	for _, p := range *l {
		if keep(p.key, &p.value) {
			kept = append(kept, p)
		}
	}
	clear((*l)[len(kept):])
	*l = kept
}

// join has meet add what o has of each key to what l has, which is zero where l has none, and reports whether any of that
// changed. meet says whether it has changed ours, and leaves theirs as it is.
func (l *list[K, V]) join(o list[K, V], meet func(key K, ours *V, theirs V) bool) bool {
	var fresh list[K, V]
	changed, from := false, 0
	for _, p := range o {
		at, ok := from, from < len(*l) && (*l)[from].key.Compare(p.key) == 0
		if !ok {
			at, ok = (*l)[from:].find(p.key)
			at += from
		}
		from = at
		if ok {
			changed = meet(p.key, &(*l)[at].value, p.value) || changed
			from++
			continue
		}
		var ours V
		if meet(p.key, &ours, p.value) {
			fresh = append(fresh, pair[K, V]{p.key, ours})
		}
	}
	l.insert(fresh)
	return changed || len(fresh) > 0
}

// insert adds pairs in order, none of whose keys l has.
func (l *list[K, V]) insert(fresh list[K, V]) {
	i := len(*l)
	*l = append(*l, fresh...)
	for j, end := len(fresh), len(*l); j > 0; end-- {
		if i > 0 && (*l)[i-1].key.Compare(fresh[j-1].key) > 0 {
			i--
			(*l)[end-1] = (*l)[i]
		} else {
			j--
			(*l)[end-1] = fresh[j]
		}
	}
}
