package router

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	regionv1 "github.com/watershed-db/watershed/proto/watershed/region/v1"
)

// TestNewerIsRefused: a call of a later version is refused, and the message says both.
func TestNewerIsRefused(t *testing.T) {
	said := func(version string) context.Context {
		return metadata.NewIncomingContext(context.Background(), metadata.Pairs(versionKey, version))
	}
	method := regionv1.ShardService_Propose_FullMethodName
	err := CheckVersion(said(strconv.Itoa(Version+1)), method)
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), fmt.Sprint("version ", Version+1)) ||
		!strings.HasSuffix(err.Error(), fmt.Sprint("up to ", Version)) {
		t.Errorf("a newer call: %v", err)
	}
	if err := CheckVersion(said("x"), method); status.Code(err) != codes.InvalidArgument {
		t.Errorf("no number: %v", err)
	}
	for name, ctx := range map[string]context.Context{"one that says nothing": context.Background(), "this version": said(strconv.Itoa(Version))} {
		if err := CheckVersion(ctx, method); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := CheckVersion(said("9"), "/watershed.v1.ClusterService/Topology"); err != nil {
		t.Errorf("a call of a client: %v", err)
	}
	out, _ := metadata.FromOutgoingContext(sayVersion(context.Background(), method))
	if got := out.Get(versionKey); len(got) != 1 || got[0] != strconv.Itoa(Version) {
		t.Errorf("a call says %v", got)
	}
}
