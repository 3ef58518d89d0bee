package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/watershed-db/watershed/cmd/watershed/internal/output"
	"github.com/watershed-db/watershed/proto/client"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

func newOwner() *cobra.Command {
	return group(&cobra.Command{
		Use:   "owner",
		Short: "Show which region owns each shard, hand shards over, take them over",
		Example: "  watershed owner show --endpoint 127.0.0.1:7001\n" +
			"  watershed owner flip --to eu-west --all --endpoint 127.0.0.1:7001",
	}, newOwnerShow(), newOwnerFlip(), newOwnerForce())
}

// shardChoice holds the flags that say which shards a command is about.
type shardChoice struct {
	shard int
	all   bool
}

func (s *shardChoice) flags(cmd *cobra.Command, all string) {
	cmd.Flags().IntVar(&s.shard, "shard", -1, "the shard's number")
	if all != "" {
		cmd.Flags().BoolVar(&s.all, "all", false, all)
	}
}

// list returns the shards that are meant: all of them without --shard where fallback says so.
func (s *shardChoice) list(ctx context.Context, c *client.Client, fallback bool) ([]uint32, error) {
	switch {
	case s.shard >= 0 && s.all:
		return nil, usagef("--shard and --all: give one of them")
	case s.shard >= 0:
		return []uint32{uint32(s.shard)}, nil
	case !s.all && !fallback:
		return nil, usagef("give --shard N or --all")
	}
	t, err := c.Topology(ctx)
	if err != nil {
		return nil, err
	}
	var out []uint32
	for i := range t.GetShards() {
		out = append(out, i)
	}
	return out, nil
}

type ownershipJSON struct {
	Shard     uint32            `json:"shard"`
	Region    string            `json:"region"` // whose view it is
	Owner     string            `json:"owner"`
	Epoch     uint64            `json:"epoch"`
	Standing  string            `json:"standing"`
	Serves    bool              `json:"serves"`
	Lease     int64             `json:"lease_ms"`
	Last      uint64            `json:"last"`
	Confirmed uint64            `json:"confirmed"`
	Members   []ownershipMember `json:"members"`
	Note      string            `json:"note,omitempty"`
}

type ownershipMember struct {
	Member uint32 `json:"member"`
	Region string `json:"region"`
	State  string `json:"state"` // copy, witness, behind or joining
}

func newOwnershipJSON(shard uint32, v *watershedv1.ShardOwnership) ownershipJSON {
	out := ownershipJSON{shard, v.GetRegion(), v.GetOwner(), v.GetEpoch(), v.GetStanding(), v.GetServes(), v.GetLeaseMs(), v.GetLast(),
		v.GetConfirmed(), []ownershipMember{}, v.GetNote()}
	for _, m := range v.GetMembers() {
		state := "copy"
		switch {
		case m.GetJoining():
			state = "joining"
		case m.GetWitness():
			state = "witness"
		case m.GetBehind():
			state = "behind"
		}
		out.Members = append(out.Members, ownershipMember{m.GetMember(), m.GetRegion(), state})
	}
	return out
}

func newOwnerShow() *cobra.Command {
	var o connection
	var s shardChoice
	cmd := &cobra.Command{
		Use:               "show",
		Short:             "Show who owns each shard, as each region sees it",
		Example:           "  watershed owner show --shard 0 --endpoint 127.0.0.1:7001",
		Args:              exactArgs(0),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.with(cmd, func(ctx context.Context, c *client.Client, f output.Format) error {
				shards, err := s.list(ctx, c, true)
				if err != nil {
					return fmt.Errorf("owner show: %w", err)
				}
				views := []ownershipJSON{}
				for _, shard := range shards {
					answer, err := c.Ownership(ctx, shard)
					if err != nil {
						return fmt.Errorf("owner show: %w", err)
					}
					for _, v := range answer.GetRegions() {
						views = append(views, newOwnershipJSON(shard, v))
					}
				}
				return printOwnership(cmd.OutOrStdout(), f, views)
			})
		},
	}
	s.flags(cmd, "")
	o.flags(cmd, 10*time.Second, "how long to try")
	return cmd
}

func printOwnership(w io.Writer, f output.Format, views []ownershipJSON) error {
	switch f {
	case output.JSON:
		return output.Object(w, f, struct {
			Shards []ownershipJSON `json:"shards"`
		}{views})
	case output.Lines:
		for _, v := range views {
			if err := output.Object(w, f, v); err != nil {
				return err
			}
		}
		return nil
	}
	t := output.NewTable(w, "SHARD", "SEEN BY", "OWNER", "EPOCH", "STANDING", "SERVES", "LEASE", "LAST", "CONFIRMED", "MEMBERS")
	for _, v := range views {
		if v.Note != "" {
			t.Add(strconv.FormatUint(uint64(v.Shard), 10), v.Region, "", "", v.Note)
			continue
		}
		var members []string
		for _, m := range v.Members {
			name := fmt.Sprintf("%s=%d", m.Region, m.Member)
			if m.State != "copy" {
				name += " (" + m.State + ")"
			}
			members = append(members, name)
		}
		t.Add(strconv.FormatUint(uint64(v.Shard), 10), v.Region, v.Owner, epochText(v.Epoch), v.Standing, strconv.FormatBool(v.Serves),
			(time.Duration(v.Lease) * time.Millisecond).String(), strconv.FormatUint(v.Last, 10), strconv.FormatUint(v.Confirmed, 10),
			strings.Join(members, ", "))
	}
	return t.Flush()
}

// epochText prints an epoch as its counter and the member that owns it.
func epochText(e uint64) string { return fmt.Sprintf("%d@%d", e>>16, e&0xffff) }

type flipJSON struct {
	Shard    uint32 `json:"shard"`
	From     string `json:"from,omitempty"`
	To       string `json:"to"`
	Epoch    uint64 `json:"epoch,omitempty"`
	Position uint64 `json:"position"` // that the old owner ended with, and the new one began behind
	Pause    int64  `json:"pause_us"`
	Error    string `json:"error,omitempty"`
}

func newOwnerFlip() *cobra.Command {
	var o connection
	var s shardChoice
	var to string
	cmd := &cobra.Command{
		Use:   "flip",
		Short: "Hand shards over to another region, as planned",
		Long: "Hand one shard or all of them over to another region. The owner takes no more, waits until the other one holds all,\n" +
			"gives the shard up and tells so; nothing that was acknowledged is lost. A flip that can't be finished goes back by\n" +
			"itself. With --all a shard that the region owns already is left as it is, and the first failure ends the command.",
		Example:           "  watershed owner flip --to eu-west --all --endpoint 127.0.0.1:7001",
		Args:              exactArgs(0),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if to == "" {
				return usagef("owner flip needs --to REGION")
			}
			return o.with(cmd, func(ctx context.Context, c *client.Client, f output.Format) error {
				shards, err := s.list(ctx, c, false)
				if err != nil {
					return err
				}
				for _, shard := range shards {
					if err := flipOne(ctx, cmd.OutOrStdout(), c, f, shard, to, s.all); err != nil {
						return fmt.Errorf("owner flip: shard %d: %w", shard, err)
					}
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "the region that is to own them")
	s.flags(cmd, "all shards")
	o.flags(cmd, 30*time.Second, "how long to try, each shard")
	return cmd
}

// flipOne hands one shard over; with lenient one that is there already is passed over.
func flipOne(ctx context.Context, w io.Writer, c *client.Client, f output.Format, shard uint32, to string, lenient bool) error {
	if lenient {
		view, err := c.Ownership(ctx, shard)
		if err != nil {
			return err
		}
		for _, v := range view.GetRegions() {
			if v.GetRegion() == to && v.GetOwner() == to && v.GetStanding() == "owning" {
				return nil
			}
		}
	}
	out, err := c.Flip(ctx, shard, to)
	if err != nil {
		return err
	}
	x := flipJSON{Shard: shard, From: out.GetFrom(), To: to, Epoch: out.GetEpoch(), Position: out.GetPosition(), Pause: out.GetPauseUs()}
	if f != output.Table {
		return output.Object(w, output.Lines, x)
	}
	_, err = fmt.Fprintf(w, "shard %d: %s -> %s, epoch %s -> %s, both hold the log to %s/%d, %s\n", shard, output.Printable(x.From),
		output.Printable(to), epochText(out.GetFromEpoch()), epochText(x.Epoch), epochText(out.GetPositionEpoch()), x.Position,
		(time.Duration(x.Pause) * time.Microsecond).Round(100*time.Microsecond))
	return err
}

type forceJSON struct {
	Shard     uint32   `json:"shard"`
	To        string   `json:"to"`
	Without   []string `json:"without"`
	Unknown   bool     `json:"may_lack_confirmed"`
	Last      uint64   `json:"last"`
	Confirmed uint64   `json:"confirmed"`
	Epoch     uint64   `json:"epoch,omitempty"`
}

func newOwnerForce() *cobra.Command {
	var o connection
	var s shardChoice
	var to string
	var yes bool
	cmd := &cobra.Command{
		Use:   "force",
		Short: "Make a region the owner without the regions that it does not hear of",
		Long: "Make a region the owner of shards whose owner is lost. The regions that it does not hear of are left out, and come\n" +
			"back as new members. The command first says what that may cost, and asks; --yes answers. It is refused while the\n" +
			"owner may be alive. Never force two sides of a cut: the one with the higher epoch stands, and what the other one\n" +
			"took meanwhile goes to its divergence ledger.",
		Example:           "  watershed owner force --to eu-west --all --endpoint 127.0.0.1:7101",
		Args:              exactArgs(0),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if to == "" {
				return usagef("owner force needs --to REGION")
			}
			return o.with(cmd, func(ctx context.Context, c *client.Client, f output.Format) error {
				shards, err := s.list(ctx, c, false)
				if err != nil {
					return err
				}
				shards, err = tellCost(ctx, cmd.ErrOrStderr(), c, shards, to)
				if err != nil {
					return fmt.Errorf("owner force: %w", err)
				}
				if len(shards) > 0 && !yes {
					if err := ask(cmd.InOrStdin(), cmd.ErrOrStderr(), to); err != nil {
						return fmt.Errorf("owner force: %w", err)
					}
				}
				for _, shard := range shards {
					if err := forceOne(ctx, cmd.OutOrStdout(), c, f, shard, to); err != nil {
						return fmt.Errorf("owner force: shard %d: %w", shard, err)
					}
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "the region that is to own them; one of its nodes must be among the endpoints, or reachable from one")
	cmd.Flags().BoolVar(&yes, "yes", false, "don't ask")
	s.flags(cmd, "all shards that the region does not own yet")
	o.flags(cmd, 30*time.Second, "how long to try, each shard")
	return cmd
}

// tellCost says what a force may cost, and returns the shards that it is for.
func tellCost(ctx context.Context, w io.Writer, c *client.Client, shards []uint32, to string) (todo []uint32, err error) {
	for _, shard := range shards {
		view, err := c.Ownership(ctx, shard)
		if err != nil {
			return nil, err
		}
		owned := false
		for _, v := range view.GetRegions() {
			owned = owned || v.GetRegion() == to && v.GetServes()
		}
		if owned {
			fmt.Fprintf(w, "shard %d: %s owns it\n", shard, output.Printable(to))
			continue
		}
		cost, err := c.Force(ctx, shard, to, true)
		if err != nil {
			return nil, fmt.Errorf("shard %d: %w", shard, err)
		}
		todo = append(todo, shard)
		fmt.Fprintf(w, "shard %d: %s goes on without %s. It holds the log to %d, confirmed to %d. Writes of `region` durability that "+
			"they acknowledged behind %d are lost here, and listed when they come back.", shard, output.Printable(to),
			output.Printable(strings.Join(cost.GetWithout(), ", ")), cost.GetLast(), cost.GetConfirmed(), cost.GetLast())
		if cost.GetUnknown() {
			fmt.Fprint(w, " Writes of `quorum` durability may be lacking, too: they were enough to confirm some among themselves.")
		} else {
			fmt.Fprint(w, " No confirmed write is lacking.")
		}
		if wait := cost.GetWaitMs(); wait > 0 {
			fmt.Fprintf(w, " A lease may be in force for %s.", time.Duration(wait)*time.Millisecond)
		}
		fmt.Fprintln(w)
	}
	return todo, nil
}

// errNotConfirmed says that the question was not answered with the region's name.
var errNotConfirmed = errors.New("not confirmed: nothing was done")

// ask has the operator type the region's name.
func ask(in io.Reader, w io.Writer, to string) error {
	fmt.Fprintf(w, "Type %s to go on: ", to)
	line, err := bufio.NewReader(io.LimitReader(in, 1<<10)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) || strings.TrimSpace(line) != to {
		return errNotConfirmed
	}
	return nil
}

func forceOne(ctx context.Context, w io.Writer, c *client.Client, f output.Format, shard uint32, to string) error {
	out, err := c.Force(ctx, shard, to, false)
	if err != nil {
		return err
	}
	if f != output.Table {
		return output.Object(w, output.Lines, forceJSON{shard, to, out.GetWithout(), out.GetUnknown(), out.GetLast(), out.GetConfirmed(), out.GetEpoch()})
	}
	_, err = fmt.Fprintf(w, "shard %d: %s owns it with epoch %s, without %s\n", shard, output.Printable(to), epochText(out.GetEpoch()),
		output.Printable(strings.Join(out.GetWithout(), ", ")))
	return err
}
