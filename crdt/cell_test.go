package crdt

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

// Any cut of the records into cells, merged in any order and either way, gives the same bytes.
func TestCellRegrouping(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		records := genRecords(allOps).Draw(t, "records")
		want := fold(testSchema, records).AppendTo(nil)
		parts := make([]*Cell, rapid.IntRange(1, 5).Draw(t, "parts"))
		for i := range parts {
			parts[i] = NewCell(testSchema)
		}
		for _, r := range rapid.Permutation(records).Draw(t, "order") {
			parts[rapid.IntRange(0, len(parts)-1).Draw(t, "part")].Merge(fold(testSchema, []record{r}))
		}
		encoded := parts[0].AppendTo(nil)
		for _, p := range parts[1:] {
			b := p.AppendTo(nil)
			if rapid.Bool().Draw(t, "swap") {
				b, encoded = encoded, b
			}
			var err error
			if encoded, err = MergeCells(nil, encoded, b); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(encoded, want) {
			t.Fatalf("merged %x, folded at once %x", encoded, want)
		}
	})
}
