package service

import (
	"strings"
	"testing"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

// TestAFormatIsRaisedWhenAllKnowIt: one node of another region that doesn't, or doesn't say, is enough to refuse.
func TestAFormatIsRaisedWhenAllKnowIt(t *testing.T) {
	node := func(id string, up bool, format uint32) *watershedv1.Node {
		return &watershedv1.Node{Id: id, Up: up, Format: format}
	}
	here := &watershedv1.Region{Name: "a", Nodes: []*watershedv1.Node{node("a-1", true, 2), node("a-2", true, 3)}}
	for name, c := range map[string]struct {
		other   *watershedv1.Region
		without []string
		refused string // "": it is raised
	}{
		"all know it":       {other: &watershedv1.Region{Name: "b", Nodes: []*watershedv1.Node{node("b-1", true, 2)}}},
		"one is older":      {other: &watershedv1.Region{Name: "b", Nodes: []*watershedv1.Node{node("b-1", true, 2), node("b-2", true, 1)}}, refused: "node b-2 of b knows formats up to 1, not 2"},
		"one is down":       {other: &watershedv1.Region{Name: "b", Nodes: []*watershedv1.Node{node("b-1", false, 0)}}, refused: "node b-1 of b does not answer"},
		"a region is gone":  {other: &watershedv1.Region{Name: "b", Note: "cannot be reached: timeout"}, refused: "region b cannot be reached: timeout"},
		"it is not asked":   {other: &watershedv1.Region{Name: "b", Note: "cannot be reached: timeout"}, without: []string{"b"}},
		"another isn't":     {other: &watershedv1.Region{Name: "b", Note: "cannot be reached: timeout"}, without: []string{"c"}, refused: "region b"},
		"it names no node":  {other: &watershedv1.Region{Name: "b"}, refused: "region b names no node"},
		"an old one is out": {other: &watershedv1.Region{Name: "b", Nodes: []*watershedv1.Node{node("b-1", true, 1)}}, without: []string{"b"}},
	} {
		err := checkAnnounced(2, []*watershedv1.Region{here, c.other}, c.without)
		if c.refused == "" && err != nil || c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused)) {
			t.Errorf("%s: %v, expected %q", name, err, c.refused)
		}
	}
	if err := checkAnnounced(3, []*watershedv1.Region{here}, nil); err == nil || !strings.Contains(err.Error(), "node a-1 of a knows formats up to 2, not 3") {
		t.Errorf("one of its own is older: %v", err)
	}
}
