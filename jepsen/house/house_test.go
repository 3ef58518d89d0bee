package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/watershed-db/watershed/"

// may says what each room may import of the others. A room holds what lies in it, but for what has a line of its own, and
// may always import itself; "x/..." stands for x and all in it. A line that allows more than is used is too wide.
var may = map[string][]string{
	"proto":        {},
	"proto/client": {"crdt", "crdt/table", "proto"},

	"crdt":            {"crdt/wire"},
	"crdt/wire":       {},
	"crdt/table":      {"crdt", "crdt/wire"},
	"keyspace":        {"crdt"},
	"keyspace/mutant": {},
	"keyspace/table":  {"crdt", "crdt/table", "keyspace", "strict"},
	"log":             {"crdt"},
	"strict":          {},

	"processor":         {"crdt", "keyspace", "log", "processor/job", "processor/decode"},
	"processor/job":     {"crdt", "keyspace", "strict"},
	"processor/decode":  {"crdt"},
	"processor/bounded": {"crdt", "log", "processor", "processor/job", "processor/decode"},
	"processor/worker":  {"crdt", "log", "processor", "processor/job"},
	"processor/emit":    {"crdt", "log", "processor/job"},

	"region":                    {"crdt", "failover/owned", "failover/ownership", "keyspace", "proto", "processor/job", "region/..."},
	"region/config":             {"crdt", "strict", "region/checkpoint/objects"},
	"region/checkpoint":         {"region/checkpoint/objects"},
	"region/checkpoint/objects": {},
	"region/group":              {"region/limit"},
	"region/limit":              {},
	"region/carrier": {"keyspace", "proto", "region/group", "region/placement", "region/router",
		"region/shard"},
	"region/placement":     {},
	"region/probe":         {},
	"region/owner":         {"crdt", "failover/owned", "failover/ownership", "keyspace", "keyspace/table", "proto", "region/group", "region/limit", "region/shard"},
	"region/shard":         {"crdt", "crdt/table", "failover/owned", "failover/ownership", "keyspace", "keyspace/table", "processor/job"},
	"region/replica":       {"crdt", "keyspace", "region/group", "region/limit", "region/shard"},
	"region/router":        {"crdt", "keyspace", "proto", "region/group", "region/limit", "region/replica", "region/shard"},
	"region/peer":          {"crdt", "crdt/table", "keyspace", "proto", "region/group", "region/limit", "region/router", "region/shard"},
	"region/peer/peertest": {"crdt", "processor/job", "proto", "region/group", "region/limit", "region/peer", "region/replica", "region/shard"},
	"region/upkeep":        {"crdt", "crdt/table", "region/peer", "region/shard"},
	"region/emission":      {"crdt", "keyspace", "processor/job", "region/shard"},
	"region/coordinator":   {"crdt", "keyspace", "keyspace/table", "processor/job", "proto", "region/shard"},
	"region/service": {"region/carrier", "region/placement", "crdt", "crdt/table", "keyspace", "keyspace/table", "processor/job", "proto", "region/config", "region/coordinator", "region/group",
		"failover/owned", "failover/ownership", "region/limit", "region/owner", "region/peer", "region/replica", "region/router", "region/shard", "region/checkpoint",
		"region/checkpoint/objects"},

	"failover/ownership": {"crdt/wire"},
	"failover/owned":     {"crdt/wire", "failover/ownership"},

	"cmd/watershed": {"log", "processor/bounded", "processor/job", "proto", "proto/client", "region", "region/config", "strict",
		"cmd/watershed/..."},
	"cmd/watershed/internal/demo": {"log", "proto", "proto/client", "cmd/watershed/internal/dev",
		"cmd/watershed/internal/output"},
	"cmd/watershed/internal/dev":    {"crdt", "log", "processor/job", "proto", "region/config"},
	"cmd/watershed/internal/output": {"crdt", "proto"},
	"cmd/watershed/internal/link": {"crdt", "keyspace", "log", "processor/worker", "proto", "region/group", "region/router",
		"region/shard"},
	"cmd/watershed/internal/parts": {"log", "processor/emit", "processor/worker", "region", "region/config",
		"region/coordinator", "region/emission", "region/replica", "cmd/watershed/internal/link"},

	"jepsen":        {},
	"jepsen/oracle": {},
	"jepsen/cases":  {"jepsen/oracle"},
	"jepsen/e2e":    {"proto", "region/shard", "jepsen/cases", "jepsen/oracle"},
	"bench":         {"crdt", "keyspace", "log", "processor/bounded", "processor/job", "proto", "proto/client", "region/shard", "jepsen"},
}

// everywhere may be imported by every room: switches for seeded bugs, which import nothing themselves.
var everywhere = []string{"keyspace/mutant"}

// longer lists the files that may pass the bound on lines, each with its reason.
var longer = map[string]string{}

const (
	maxFile     = 500
	maxFunction = 70
)

type source struct {
	path string // slash-separated, from the root
	fset *token.FileSet
	file *ast.File
}

func (s source) room() string { return filepath.ToSlash(filepath.Dir(s.path)) }

func (s source) test() bool { return strings.HasSuffix(s.path, "_test.go") }

// sources parses every Go file of the tree that is written by hand.
func sources(t *testing.T) []source {
	t.Helper()
	const root = "../.."
	var out []source
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != root {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, ".pb.go") {
			return nil
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		out = append(out, source{filepath.ToSlash(rel), fset, file})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 10 {
		t.Fatalf("found %d Go files: this test looks in the wrong place", len(out))
	}
	return out
}

func (s source) imports() []string {
	var out []string
	for _, i := range s.file.Imports {
		path, _ := strconv.Unquote(i.Path.Value)
		out = append(out, path)
	}
	return out
}

func within(room, of string) bool { return room == of || strings.HasPrefix(room, of+"/") }

// rule returns the longest room in `may` that holds the given one.
func rule(room string) (string, []string, bool) {
	for r := room; ; {
		if allowed, ok := may[r]; ok {
			return r, allowed, true
		}
		i := strings.LastIndexByte(r, '/')
		if i < 0 {
			return "", nil, false
		}
		r = r[:i]
	}
}

func TestImportsPointOneWay(t *testing.T) {
	used := map[string]bool{} // room and what it was allowed
	for _, s := range sources(t) {
		if s.room() == "." {
			continue
		}
		room, allowed, ok := rule(s.room())
		if !ok {
			t.Errorf("%s: a room that the house does not know; give it a line in `may`", s.path)
			continue
		}
		for _, path := range s.imports() {
			to, ours := strings.CutPrefix(path, module)
			if !ours || slices.Contains(everywhere, to) {
				continue
			}
			other, _, _ := rule(to)
			i := slices.IndexFunc(allowed, func(a string) bool { return allows(a, other) })
			switch {
			case i >= 0:
				used[room+" "+allowed[i]] = true
			case other != room && !s.test():
				t.Errorf("%s: %s may not import %s", s.path, room, to)
			}
		}
	}
	for room, allowed := range may {
		for _, a := range allowed {
			if !used[room+" "+a] {
				t.Errorf("%s may import %s, and does not: narrow its line in `may`", room, a)
			}
		}
	}
}

// allows says whether an entry of `may` stands for a room.
func allows(entry, room string) bool {
	if all, ok := strings.CutSuffix(entry, "/..."); ok {
		return within(room, all)
	}
	return entry == room
}

func TestBannedImports(t *testing.T) {
	pure := []string{"crdt", "crdt/table", "keyspace/mutant", "processor/job", "processor/decode", "region/placement", "region/shard",
		"failover/ownership", "failover/owned"}
	for _, s := range sources(t) {
		for _, path := range s.imports() {
			if path == "log" || path == "log/slog" {
				t.Errorf("%s imports %q: log through go-hclog", s.path, path)
			}
			clocked := path == "math/rand" || path == "math/rand/v2" || path == "net"
			if clocked && !s.test() && slices.Contains(pure, s.room()) {
				t.Errorf("%s imports %q: the core is pure", s.path, path)
			}
		}
	}
}

func TestThePureRoomsReadNoClock(t *testing.T) {
	pure := []string{"crdt", "crdt/table", "processor", "processor/job", "processor/decode", "failover/ownership", "failover/owned"}
	for _, s := range sources(t) {
		if s.test() || !slices.Contains(pure, s.room()) {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			x, ok := sel.X.(*ast.Ident)
			if ok && x.Name == "time" && slices.Contains([]string{"Now", "Since", "Until", "Local"}, sel.Sel.Name) {
				t.Errorf("%s: time.%s in a pure room", s.fset.Position(n.Pos()), sel.Sel.Name)
			}
			if ok && x.Name == "math" && slices.Contains([]string{"Log", "Log2", "Log10", "Exp", "Pow"}, sel.Sel.Name) {
				t.Errorf("%s: math.%s differs between architectures", s.fset.Position(n.Pos()), sel.Sel.Name)
			}
			return true
		})
	}
}

func TestFilesAndFunctionsAreShort(t *testing.T) {
	for _, s := range sources(t) {
		if s.test() {
			continue
		}
		lines := s.fset.Position(s.file.End()).Line
		if lines > maxFile && longer[s.path] == "" {
			t.Errorf("%s has %d lines, %d are allowed without a reason", s.path, lines, maxFile)
		}
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if n := s.fset.Position(f.End()).Line - s.fset.Position(f.Pos()).Line; n > maxFunction {
				t.Errorf("%s: %s has %d lines, %d are allowed", s.fset.Position(f.Pos()), f.Name.Name, n, maxFunction)
			}
		}
	}
}

func TestNoSleepInTests(t *testing.T) {
	for _, s := range sources(t) {
		if !s.test() {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Sleep" {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" {
					t.Errorf("%s: await a condition, do not sleep", s.fset.Position(n.Pos()))
				}
			}
			return true
		})
	}
}
