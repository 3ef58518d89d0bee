package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/watershed-db/watershed/cmd/watershed/internal/output"
	"github.com/watershed-db/watershed/proto/client"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

// errNoValue says that a key has no value: one line and status 1.
var errNoValue = errors.New("there is no value")

// tableWrite is a command that writes one key of a table and prints nothing.
type tableWrite struct {
	use, short, long, example string
	args                      int // behind TABLE KEY
	optional                  int // of those that may be left out, the last ones
	run                       func(ctx context.Context, t *client.Table, key string, args []string) error
}

func (w tableWrite) command() *cobra.Command {
	var o connection
	cmd := &cobra.Command{
		Use: w.use, Short: w.short, Example: "  watershed table " + w.example + " --endpoint 127.0.0.1:7001",
		Long: w.long + "\n\nThe write counts once, however often it has to be tried. Where its outcome can't be known when the time is over,\n" +
			"the exit status is 3: it may be made again.",
		Args: func(cmd *cobra.Command, args []string) error {
			if n := len(args) - 2; n > w.args || n < w.args-w.optional {
				return usagef("%s takes %s, not %d arguments", cmd.CommandPath(), strings.Join(strings.Fields(w.use)[1:], " "), len(args))
			}
			return nil
		},
		ValidArgsFunction: completeTables(&o),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.with(cmd, func(ctx context.Context, c *client.Client, _ output.Format) error {
				if err := w.run(ctx, c.Table(args[0]), args[1], args[2:]); err != nil {
					return fmt.Errorf("%s %s %s: %w", cmd.Name(), args[0], args[1], err)
				}
				return nil
			})
		},
	}
	o.flags(cmd, 10*time.Second, "how long to try")
	return cmd
}

func newTableIncr(sign int64) *cobra.Command {
	w := tableWrite{
		use: "incr TABLE KEY [N]", short: "Add to a counter", long: "Add N, or 1, to a counter. A table of type counter takes no N below 0.",
		example: "incr visits home 5", args: 1, optional: 1,
	}
	if sign < 0 {
		w.use, w.short = "decr TABLE KEY [N]", "Take from a counter"
		w.long, w.example = "Take N, or 1, from a counter of type updown.", "decr stock screws 5"
	}
	w.run = func(ctx context.Context, t *client.Table, key string, args []string) error {
		by := int64(1)
		if len(args) > 0 {
			var err error
			if by, err = strconv.ParseInt(args[0], 10, 64); err != nil || by == math.MinInt64 {
				return usagef("%q is no whole number of 64 bits", args[0])
			}
		}
		return t.Increment(ctx, key, sign*by)
	}
	return w.command()
}

func newTablePut() *cobra.Command {
	return tableWrite{
		use: "put TABLE KEY VALUE", short: "Set the value of a key",
		long:    "Set the value of a key of an owned table, or of a register: there the last writer of any region wins.",
		example: "put mottos home 'mind the gap'", args: 1,
		run: func(ctx context.Context, t *client.Table, key string, args []string) error {
			_, err := t.Put(ctx, key, []byte(args[0]))
			return err
		},
	}.command()
}

func newTableCAS() *cobra.Command {
	var version, value string
	var absent bool
	w := tableWrite{
		use: "cas TABLE KEY VALUE", short: "Set the value of a key, if it is as expected",
		long: "Set the value of a key of an owned table, if what is there is as expected: of a version, as get prints it with --output\n" +
			"json, or equal to a value, or nothing at all. Else the exit status is 1.",
		example: "cas drivers 7 busy --value free", args: 1,
	}
	var cmd *cobra.Command
	w.run = func(ctx context.Context, t *client.Table, key string, args []string) error {
		var expect client.Expect
		given := 0
		if cmd.Flags().Changed("version") {
			given++
			v, err := parseVersion(version)
			if err != nil {
				return err
			}
			expect.Version = v
		}
		if cmd.Flags().Changed("value") {
			given++
			expect.Value = []byte(value)
		}
		if absent {
			given++
		}
		if given != 1 {
			return usagef("cas needs one of --version, --value and --absent")
		}
		stands, err := t.CompareAndSet(ctx, key, expect, []byte(args[0]))
		switch {
		case errors.Is(err, client.ErrCompare) && stands == nil:
			return fmt.Errorf("%w: there is none", err)
		case errors.Is(err, client.ErrCompare):
			return fmt.Errorf("%w: its version is %s", err, versionText(stands))
		}
		return err
	}
	cmd = w.command()
	cmd.Flags().StringVar(&version, "version", "", "expect this version, EPOCH.POSITION")
	cmd.Flags().StringVar(&value, "value", "", "expect this value")
	cmd.Flags().BoolVar(&absent, "absent", false, "expect that there is no value")
	return cmd
}

func versionText(v *watershedv1.Version) string {
	return fmt.Sprintf("%d.%d", v.GetEpoch(), v.GetPosition())
}

func parseVersion(s string) (*watershedv1.Version, error) {
	epoch, position, ok := strings.Cut(s, ".")
	v := &watershedv1.Version{}
	var e1, e2 error
	v.Epoch, e1 = strconv.ParseUint(epoch, 10, 64)
	v.Position, e2 = strconv.ParseUint(position, 10, 64)
	if !ok || e1 != nil || e2 != nil {
		return nil, usagef("--version %q: want EPOCH.POSITION, as get prints it", s)
	}
	return v, nil
}

func newTableDelete() *cobra.Command {
	return tableWrite{
		use: "delete TABLE KEY", short: "Remove the value of a key", long: "Remove the value of a key of an owned table or a register, if it has one.",
		example: "delete mottos home",
		run: func(ctx context.Context, t *client.Table, key string, _ []string) error {
			return t.Delete(ctx, key)
		},
	}.command()
}

func newTableAdd() *cobra.Command {
	return tableWrite{
		use: "add TABLE KEY ELEMENT", short: "Add an element to a set", long: "Add an element to the set of a key.",
		example: "add tags home red", args: 1,
		run: func(ctx context.Context, t *client.Table, key string, args []string) error {
			return t.Add(ctx, key, []byte(args[0]))
		},
	}.command()
}

func newTableRemove() *cobra.Command {
	return tableWrite{
		use: "remove TABLE KEY ELEMENT", short: "Remove an element from a set",
		long: "Remove an element from the set of a key. In a table of type set, what another region adds at the same time stays; in\n" +
			"one of type lww-set the last writer wins.",
		example: "remove tags home red", args: 1,
		run: func(ctx context.Context, t *client.Table, key string, args []string) error {
			return t.Remove(ctx, key, []byte(args[0]))
		},
	}.command()
}

// valueJSON is a key and its value as they are printed. One of value, base64, count and elements is there.
type valueJSON struct {
	Key      json.RawMessage `json:"key"`
	Value    *string         `json:"value,omitempty"`
	Base64   []byte          `json:"base64,omitempty"` // a value that is no UTF-8
	Count    json.RawMessage `json:"count,omitempty"`
	Elements []string        `json:"elements,omitempty"`
	Version  string          `json:"version,omitempty"` // EPOCH.POSITION
	Epoch    uint64          `json:"epoch,omitempty"`
	Expires  *string         `json:"expires,omitempty"`
}

func newValueJSON(v *watershedv1.TableValue) (out valueJSON, err error) {
	if out.Key, err = output.Value(v.GetKey()); err != nil {
		return out, err
	}
	switch kind := v.GetKind().(type) {
	case *watershedv1.TableValue_Bytes:
		if s := string(kind.Bytes); utf8.ValidString(s) {
			out.Value = &s
		} else {
			out.Base64 = kind.Bytes
		}
	case *watershedv1.TableValue_Count:
		out.Count, err = output.Value(kind.Count)
	case *watershedv1.TableValue_Elements:
		for _, e := range kind.Elements.GetElements() {
			out.Elements = append(out.Elements, string(e))
		}
	}
	if x := v.GetVersion(); x != nil {
		out.Version, out.Epoch = versionText(x), x.GetEpoch()
	}
	if v.ExpiresMs != nil {
		out.Expires = output.TimeOrNull(v.GetExpiresMs())
	}
	return out, err
}

// lines are a value for people and scripts: as it was put, a number, or an element a line.
func lines(v *watershedv1.TableValue) []byte {
	switch kind := v.GetKind().(type) {
	case *watershedv1.TableValue_Bytes:
		return append(append([]byte{}, kind.Bytes...), '\n')
	case *watershedv1.TableValue_Count:
		return []byte(count(kind.Count) + "\n")
	}
	var b []byte
	for _, e := range v.GetElements().GetElements() {
		b = append(append(b, e...), '\n')
	}
	return b
}

func count(v *watershedv1.Value) string {
	if big := v.GetBig(); big != "" {
		return big
	}
	return strconv.FormatInt(v.GetInt(), 10)
}

func newTableGet() *cobra.Command {
	var o connection
	cmd := &cobra.Command{
		Use:   "get TABLE KEY",
		Short: "Print the value of a key",
		Long: "Print the value of a key as the region that answers has it: as it was put, or the number of a counter, or each\n" +
			"element of a set on a line. With --output json or jsonl an object. Where the key has no value the exit status is 1.",
		Example:           "  watershed table get visits home --endpoint 127.0.0.1:7001",
		Args:              exactArgs(2),
		ValidArgsFunction: completeTables(&o),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.with(cmd, func(ctx context.Context, c *client.Client, f output.Format) error {
				v, err := c.Table(args[0]).Get(ctx, args[1])
				if err == nil && v == nil {
					err = errNoValue
				}
				if err != nil {
					return fmt.Errorf("get %s %s: %w", args[0], args[1], err)
				}
				if o.output == "" || f == output.Table {
					_, err := cmd.OutOrStdout().Write(lines(v))
					return err
				}
				shown, err := newValueJSON(v)
				if err != nil {
					return err
				}
				return output.Object(cmd.OutOrStdout(), f, shown)
			})
		},
	}
	o.flags(cmd, 10*time.Second, "how long to try")
	return cmd
}

func newTableScan() *cobra.Command {
	var o connection
	var from string
	var limit int
	cmd := &cobra.Command{
		Use:   "scan TABLE",
		Short: "Print the keys of a table and their values",
		Long: "Print the keys of a table and their values in order of keys, as the region that answers has them: each as it was at\n" +
			"some moment meanwhile.",
		Example:           "  watershed table scan visits --from h --limit 100 --endpoint 127.0.0.1:7001",
		Args:              exactArgs(1),
		ValidArgsFunction: completeTables(&o),
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit < 0 {
				return usagef("--limit %d: want none, or more than 0", limit)
			}
			return o.with(cmd, func(ctx context.Context, c *client.Client, f output.Format) error {
				t := output.NewTable(cmd.OutOrStdout(), "KEY", "VALUE")
				var all []valueJSON
				err := c.Table(args[0]).Scan(ctx, from, limit, func(v *watershedv1.TableValue) error {
					shown, err := newValueJSON(v)
					key, e := output.Cell(v.GetKey())
					switch err = errors.Join(err, e); {
					case err != nil:
						return err
					case f == output.Table:
						t.Add(key, strings.ReplaceAll(strings.TrimSuffix(string(lines(v)), "\n"), "\n", ", "))
					case f == output.Lines:
						return output.Object(cmd.OutOrStdout(), f, shown)
					default:
						all = append(all, shown)
					}
					return nil
				})
				if err != nil {
					err = fmt.Errorf("scan %s: %w", args[0], err)
				}
				switch {
				case f == output.Table:
					return errors.Join(t.Flush(), err)
				case f == output.JSON && err == nil:
					return output.Objects(cmd.OutOrStdout(), f, all)
				}
				return err
			})
		},
	}
	o.flags(cmd, time.Minute, "how long to try")
	cmd.Flags().StringVar(&from, "from", "", "the first key (default: all)")
	cmd.Flags().IntVar(&limit, "limit", 0, "print no more keys than this (default: all)")
	return cmd
}
