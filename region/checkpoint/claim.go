package checkpoint

import (
	"context"
	"errors"
	"fmt"

	"github.com/watershed-db/watershed/region/checkpoint/objects"
)

// ErrForeign says that a prefix holds what is not this region's.
var ErrForeign = errors.New("the checkpoints below this prefix are not this region's")

// claimPrefix sees that the prefix is the deployment's, and makes it so where it is nobody's yet.
func claimPrefix(ctx context.Context, store objects.Store, s *Scope) error {
	want := identity{FormatVersion, s.Deployment, s.Shards}
	body, _, err := store.Get(ctx, identityKey, maxSmall)
	if errors.Is(err, objects.ErrNotFound) {
		if _, err = store.Create(ctx, identityKey, encode(want)); !errors.Is(err, objects.ErrExists) {
			return err
		}
		body, _, err = store.Get(ctx, identityKey, maxSmall)
	}
	if err != nil {
		return err
	}
	return checkPrefix(body, s)
}

func checkPrefix(body []byte, s *Scope) error {
	var have identity
	if err := decode(body, &have); err != nil {
		return fmt.Errorf("%s %w", identityKey, err)
	}
	switch {
	case have.Deployment != s.Deployment:
		return fmt.Errorf("%w: they are of deployment %.64s, this is %s; take another prefix", ErrForeign, have.Deployment, s.Deployment)
	case have.Shards != s.Shards:
		return fmt.Errorf("%w: they are of %d shards, this deployment has %d", ErrForeign, have.Shards, s.Shards)
	}
	return nil
}

// readRegion returns which incarnation of the region writes; nil where none ever has.
func readRegion(ctx context.Context, store objects.Store, region string) (*regionIdentity, objects.Tag, error) {
	key := place(region).identity()
	body, tag, err := store.Get(ctx, key, maxSmall)
	if errors.Is(err, objects.ErrNotFound) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	have := new(regionIdentity)
	if err := decode(body, have); err != nil {
		return nil, "", fmt.Errorf("%s %w", key, err)
	}
	return have, tag, nil
}

// claim sees that this incarnation of the region is the one that writes, and returns its lineage. It makes it so where no
// other one has written, or where this one was restored from what that one wrote. vouch asks the region's other nodes
// whether they belong to a lineage.
func claim(ctx context.Context, store objects.Store, s *Scope, own *Lineage, vouch func(lineage string) bool) (string, error) {
	if err := claimPrefix(ctx, store, s); err != nil {
		return "", err
	}
	have, tag, err := readRegion(ctx, store, s.Region)
	if err != nil {
		return "", err
	}
	want := regionIdentity{Version: FormatVersion, Region: s.Region, Member: s.Member}
	key := place(s.Region).identity()
	if have == nil {
		if want.Lineage, err = own.begin(); err != nil {
			return "", err
		}
		_, err = store.Create(ctx, key, encode(want))
		return want.Lineage, err
	}
	if have.Member > s.Member {
		return "", fmt.Errorf("%w: the region goes on as member %d, this is member %d", ErrDeposed, have.Member, s.Member)
	}
	id := own.ID()
	if id == "" && have.Member == s.Member && vouch(have.Lineage) {
		if err := own.Adopt(have.Lineage); err != nil {
			return "", err
		}
		id = have.Lineage
	}
	if id != have.Lineage {
		return "", fmt.Errorf("%w: another deployment of this name writes there, or %s was wiped and started anew; restore it, or "+
			"take another prefix", ErrForeign, s.Region)
	}
	if have.Member == s.Member {
		return id, nil
	}
	want.Lineage = id
	_, err = store.Replace(ctx, key, encode(want), tag)
	return id, err
}
