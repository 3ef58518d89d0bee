package e2e

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// ask makes a call at the first of some nodes that answers it.
func ask[C, Q, A any](t testing.TB, addresses []string, within time.Duration, client func(grpc.ClientConnInterface) C,
	call func(C, context.Context, Q, ...grpc.CallOption) (A, error), q Q) (answer A, err error) {
	t.Helper()
	for _, address := range addresses {
		answer, err = askOne(address, within, client, call, q)
		if err == nil {
			return answer, nil
		}
	}
	return answer, err
}

func askOne[C, Q, A any](address string, within time.Duration, client func(grpc.ClientConnInterface) C,
	call func(C, context.Context, Q, ...grpc.CallOption) (A, error), q Q) (answer A, err error) {
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return answer, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	return call(client(conn), ctx, q)
}
