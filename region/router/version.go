package router

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Version is that of the messages between nodes of a region. It travels with every call; a newer one is refused.
const Version = 1

const (
	versionKey = "watershed-region-version"
	// regionMethods begin the names of the methods that only nodes of a region call.
	regionMethods = "/watershed.region."
)

// CheckVersion refuses a call between nodes of a region whose caller speaks a newer version than this build. A caller
// that says nothing speaks version 1.
func CheckVersion(ctx context.Context, method string) error {
	if !strings.HasPrefix(method, regionMethods) {
		return nil
	}
	incoming, _ := metadata.FromIncomingContext(ctx)
	for _, said := range incoming.Get(versionKey) {
		v, err := strconv.ParseUint(said, 10, 32)
		if err != nil {
			return status.Error(codes.InvalidArgument, "the version of a call between nodes is not a number")
		}
		if v > Version {
			return status.Error(codes.FailedPrecondition,
				fmt.Sprintf("the call is of version %d of the messages between nodes, this node speaks up to %d", v, Version))
		}
	}
	return nil
}

func sayVersion(ctx context.Context, method string) context.Context {
	if !strings.HasPrefix(method, regionMethods) {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, versionKey, strconv.Itoa(Version))
}

func versionOfCall(ctx context.Context, method string, in, out any, cc *grpc.ClientConn, next grpc.UnaryInvoker,
	o ...grpc.CallOption,
) error {
	return next(sayVersion(ctx, method), method, in, out, cc, o...)
}

func versionOfStream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer,
	o ...grpc.CallOption,
) (grpc.ClientStream, error) {
	return next(sayVersion(ctx, method), desc, cc, method, o...)
}
