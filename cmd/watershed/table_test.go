package main

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

// fakeTables answers as a node of a deployment with two tables, drivers and visits.
type fakeTables struct{ *fakeNode }

var driversTable = &watershedv1.Table{
	Name: "drivers", Id: []byte("\x00\x00\x00\x00\x00\x01\x00\x01\x00\x00\x00\x00\x00\x00\x00\x03"), Type: "owned", Durability: "quorum",
	TtlMs: 86_400_000, MaxBytes: 65536, File: []byte("name: drivers\n"),
}

var visitsTable = &watershedv1.Table{
	Name: "visits", Id: []byte("\x00\x00\x00\x00\x00\x01\x00\x01\x00\x00\x00\x00\x00\x00\x00\x04"), Type: "counter", MaxBytes: 1024,
}

func (n fakeTables) Validate(_ context.Context, in *watershedv1.ValidateTableRequest) (*watershedv1.ValidateTableResponse, error) {
	if string(in.GetFile()) == "bad\n" {
		return &watershedv1.ValidateTableResponse{Problems: []string{in.GetFileName() + ":1:1: no table; expected a table"}}, nil
	}
	return &watershedv1.ValidateTableResponse{Name: "drivers"}, nil
}

func (n fakeTables) Apply(_ context.Context, in *watershedv1.ApplyTableRequest) (*watershedv1.ApplyTableResponse, error) {
	switch string(in.GetFile()) {
	case "other\n":
		return nil, status.Error(codes.FailedPrecondition, "table drivers is there with another meaning: ttl changed")
	case "same\n":
		return &watershedv1.ApplyTableResponse{Table: driversTable, Regions: []string{"us-east", "eu-west"}}, nil
	}
	return &watershedv1.ApplyTableResponse{Table: driversTable, Changed: true, Regions: []string{"us-east"}, Missing: []string{"eu-west"}}, nil
}

func (n fakeTables) List(context.Context, *watershedv1.ListTablesRequest) (*watershedv1.ListTablesResponse, error) {
	return &watershedv1.ListTablesResponse{Tables: []*watershedv1.Table{driversTable, visitsTable}}, nil
}

func (n fakeTables) Show(_ context.Context, in *watershedv1.ShowTableRequest) (*watershedv1.ShowTableResponse, error) {
	if in.GetName() != "drivers" {
		return nil, status.Errorf(codes.NotFound, "there is no table %q", in.GetName())
	}
	return &watershedv1.ShowTableResponse{Table: driversTable}, nil
}

func (n fakeTables) Drop(_ context.Context, in *watershedv1.DropTableRequest) (*watershedv1.DropTableResponse, error) {
	return &watershedv1.DropTableResponse{Existed: in.GetName() == "drivers", Missing: []string{"eu-west"}}, nil
}

func TestTableNamesAreCompleted(t *testing.T) {
	endpoint := (&fakeNode{}).serve(t)
	out, _, _ := watershed(t, "__complete", "table", "show", "--endpoint", endpoint, "")
	if got := strings.Join(strings.Fields(string(out)), " "); !strings.HasPrefix(got, "drivers visits :4") {
		t.Errorf("completed with %q", got)
	}
}

// tableTypes are the tables that the node holds values of, by name.
var tableTypes = map[string]string{"visits": "counter", "mottos": "register", "tags": "set", "lost": "counter", "drivers": "owned"}

func (n *fakeNode) OpenSession(_ context.Context, in *watershedv1.OpenSessionRequest) (*watershedv1.OpenSessionResponse, error) {
	kind := tableTypes[in.GetTable()]
	if kind == "" {
		return nil, status.Errorf(codes.NotFound, "there is no table %q", in.GetTable())
	}
	return &watershedv1.OpenSessionResponse{
		Session: &watershedv1.WriteSession{BornMs: 1, Nonce: 1}, LifeMs: 60_000, Region: "us-east", TableId: make([]byte, 16), Type: kind, Shards: 2,
	}, nil
}

func (n *fakeNode) Write(_ context.Context, in *watershedv1.WriteRequest) (*watershedv1.WriteResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.written = in
	switch {
	case in.GetTable() == "lost":
		return nil, status.Error(codes.Unavailable, "the leader is gone")
	case in.GetKey().GetText() == "taken":
		return &watershedv1.WriteResponse{Region: "us-east", Failed: true, Version: &watershedv1.Version{Epoch: 65537, Position: 12}}, nil
	case in.GetIncrement() < 0:
		return nil, status.Error(codes.InvalidArgument, "operation refused: a counter only grows, not by -1")
	}
	return &watershedv1.WriteResponse{Region: "us-east"}, nil
}

// tableValues are in order of keys.
var tableValues = []*watershedv1.TableValue{
	{Key: text("binary"), Kind: &watershedv1.TableValue_Bytes{Bytes: []byte{0xff, 0}}},
	{Key: text("cafe"), Kind: &watershedv1.TableValue_Bytes{Bytes: []byte("mind the \"gap\"")}},
	{Key: text("home"), Kind: &watershedv1.TableValue_Count{Count: integer(-7)}},
	{Key: text("huge"), Kind: &watershedv1.TableValue_Count{Count: &watershedv1.Value{Kind: &watershedv1.Value_Big{Big: "18446744073709551616"}}}},
	{
		Key: text("owned"), Kind: &watershedv1.TableValue_Bytes{Bytes: []byte("x")},
		Version: &watershedv1.Version{Epoch: 65537, Position: 12}, ExpiresMs: new(int64),
	},
	{Key: text("tags"), Kind: &watershedv1.TableValue_Elements{Elements: &watershedv1.Elements{Elements: [][]byte{[]byte("blue"), []byte("red")}}}},
	{Key: integer(7), Kind: &watershedv1.TableValue_Count{Count: integer(0)}},
}

func (n *fakeNode) GetValue(_ context.Context, in *watershedv1.GetValueRequest) (*watershedv1.GetValueResponse, error) {
	out := &watershedv1.GetValueResponse{Region: "us-east"}
	for _, v := range tableValues {
		if proto.Equal(v.GetKey(), in.GetKey()) {
			out.Value = v
		}
	}
	return out, nil
}

func (n *fakeNode) ScanTable(in *watershedv1.ScanTableRequest, out watershedv1.StateService_ScanTableServer) error {
	if tableTypes[in.GetTable()] == "" {
		return status.Errorf(codes.NotFound, "there is no table %q", in.GetTable())
	}
	if err := out.Send(&watershedv1.ScanTableResponse{Values: tableValues[:2]}); err != nil || n.cut {
		return err
	}
	return out.Send(&watershedv1.ScanTableResponse{Values: tableValues[2:], End: true})
}

func TestTableWrites(t *testing.T) {
	n := &fakeNode{}
	endpoint := n.serve(t)
	for command, want := range map[string]string{
		"incr visits home":                `increment:1`,
		"incr visits home 5":              `increment:5`,
		"put mottos home a":               `put:"a"`,
		"delete mottos home":              `delete:{}`,
		"add tags home red":               `add:"red"`,
		"remove tags home red":            `remove:"red"`,
		"incr visits -- h -5":             "a counter only grows",
		"decr visits home":                "a counter only grows",
		"incr none home":                  `there is no table "none"`,
		"incr visits home x":              "no whole number",
		"put mottos home":                 "takes TABLE KEY VALUE, not 2 arguments",
		"cas drivers k new --version 7.9": `version:{epoch:7 position:9} put:"new"`,
		"cas drivers k new --value old":   `value:"old" put:"new"`,
		"cas drivers k new --absent":      `absent:true put:"new"`,
		"cas drivers k new":               "needs one of --version, --value and --absent",
		"cas drivers k a --version 7":     "want EPOCH.POSITION",
		"cas drivers taken new --absent":  "the value is not as expected: its version is 65537.12",
		"decr visits":                     "takes TABLE KEY [N], not 1 arguments",
		"delete mottos home it":           "takes TABLE KEY, not 3 arguments",
	} {
		n.written = nil
		args := append([]string{"table"}, strings.Fields(command)...)
		args = append(args[:2], append([]string{"--endpoint", endpoint}, args[2:]...)...)
		out, stderr, code := watershed(t, args...)
		got := strings.Join(strings.Fields(strings.ReplaceAll(n.written.String(), ": ", ":")), " ") // its spaces vary
		if code == 0 && !strings.Contains(got, want) || code != 0 && !strings.Contains(stderr, want) || len(out) > 0 || code == 0 && stderr != "" {
			t.Errorf("%s: status %d, %q, %s%s", command, code, got, out, stderr)
		}
	}
	_, stderr, code := watershed(t, "table", "incr", "lost", "home", "--endpoint", endpoint, "--timeout", "200ms")
	if code != 3 || !strings.Contains(stderr, "whether the write was taken is not known") {
		t.Errorf("an unknown outcome: status %d, %s", code, stderr)
	}
	if _, stderr, code = watershed(t, "table", "incr", "lost", "home", "--endpoint", "127.0.0.1:1", "--timeout", "200ms"); code != 1 {
		t.Errorf("nobody there: status %d, %s", code, stderr)
	}
}

func TestAScanOfATableThatIsCutShort(t *testing.T) {
	endpoint := (&fakeNode{cut: true}).serve(t)
	out, stderr, code := watershed(t, "table", "scan", "visits", "--output", "jsonl", "--endpoint", endpoint)
	if want := "watershed: scan visits: the answer was cut short: the node broke off its answer\n"; code != 1 || stderr != want || strings.Count(string(out), "\n") != 2 {
		t.Errorf("status %d, %s%s", code, out, stderr)
	}
}
