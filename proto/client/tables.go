package client

import (
	"context"

	"google.golang.org/grpc"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

// ValidateTable checks a table's file as a node does, and makes nothing. name stands in front of every problem.
func (c *Client) ValidateTable(ctx context.Context, name string, file []byte) (out *watershedv1.ValidateTableResponse, err error) {
	in := &watershedv1.ValidateTableRequest{FileName: name, File: file}
	err = c.call(ctx, false, func(ctx context.Context, cc *grpc.ClientConn) (err error) {
		out, err = watershedv1.NewTableServiceClient(cc).Validate(ctx, in)
		return err
	})
	return out, err
}

// ApplyTable makes a table and returns when every reachable region has it. A file that is refused is INVALID_ARGUMENT, a
// changed meaning FAILED_PRECONDITION.
func (c *Client) ApplyTable(ctx context.Context, name string, file []byte) (out *watershedv1.ApplyTableResponse, err error) {
	in := &watershedv1.ApplyTableRequest{FileName: name, File: file}
	err = c.call(ctx, true, func(ctx context.Context, cc *grpc.ClientConn) (err error) {
		out, err = watershedv1.NewTableServiceClient(cc).Apply(ctx, in)
		return err
	})
	return out, err
}

// ListTables returns all tables by name, without their files.
func (c *Client) ListTables(ctx context.Context) (tables []*watershedv1.Table, err error) {
	err = c.call(ctx, false, func(ctx context.Context, cc *grpc.ClientConn) error {
		out, err := watershedv1.NewTableServiceClient(cc).List(ctx, &watershedv1.ListTablesRequest{})
		tables = out.GetTables()
		return err
	})
	return tables, err
}

// ShowTable returns one table. One that does not exist is NOT_FOUND.
func (c *Client) ShowTable(ctx context.Context, name string) (out *watershedv1.Table, err error) {
	err = c.call(ctx, false, func(ctx context.Context, cc *grpc.ClientConn) error {
		answer, err := watershedv1.NewTableServiceClient(cc).Show(ctx, &watershedv1.ShowTableRequest{Name: name})
		out = answer.GetTable()
		return err
	})
	return out, err
}

// DropTable drops a table with all its values in every region. existed may be false after a first try whose answer was
// lost.
func (c *Client) DropTable(ctx context.Context, name string) (out *watershedv1.DropTableResponse, err error) {
	err = c.call(ctx, true, func(ctx context.Context, cc *grpc.ClientConn) (err error) {
		out, err = watershedv1.NewTableServiceClient(cc).Drop(ctx, &watershedv1.DropTableRequest{Name: name})
		return err
	})
	return out, err
}
