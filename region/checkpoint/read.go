package checkpoint

import (
	"context"
	"errors"
	"fmt"

	"github.com/watershed-db/watershed/region/checkpoint/objects"
)

// newest returns the highest number under prefix, 0 where there is none.
func newest(ctx context.Context, store objects.Store, prefix string) (number uint64, err error) {
	err = store.List(ctx, prefix, func(i objects.Info) bool {
		if n, ok := numberOf(i.Key, prefix); ok {
			number = max(number, n)
		}
		return true
	})
	return number, err
}

// readManifest returns a manifest and its checksum.
func readManifest(ctx context.Context, store objects.Store, key string) (*Manifest, string, error) {
	body, _, err := store.Get(ctx, key, maxManifest)
	if err != nil {
		return nil, "", err
	}
	m, err := decodeManifest(body)
	if err != nil {
		return nil, "", fmt.Errorf("%s %w", key, err)
	}
	return m, sumOf(body), nil
}

// readCut returns a cut and its checksum.
func readCut(ctx context.Context, store objects.Store, key string) (*Cut, string, error) {
	body, _, err := store.Get(ctx, key, maxSmall)
	if err != nil {
		return nil, "", err
	}
	c, err := decodeCut(body)
	if err != nil {
		return nil, "", fmt.Errorf("%s %w", key, err)
	}
	return c, sumOf(body), nil
}

// List returns a region's checkpoints, oldest first, and its savepoints by name. What can't be read is left out and told
// in problems.
func List(ctx context.Context, store objects.Store, region string) (cuts []*Cut, problems []error, err error) {
	p := place(region)
	for _, prefix := range [...]string{p.checkpoints(), p.savepoints()} {
		var keys []string
		if err := store.List(ctx, prefix, func(i objects.Info) bool { keys = append(keys, i.Key); return true }); err != nil {
			return nil, nil, err
		}
		for _, key := range keys {
			c, _, err := readCut(ctx, store, key)
			switch {
			case errors.Is(err, ErrDamaged), errors.Is(err, ErrVersion):
				problems = append(problems, err)
			case errors.Is(err, objects.ErrNotFound): // removed meanwhile
			case err != nil:
				return nil, nil, err
			default:
				cuts = append(cuts, c)
			}
		}
	}
	return cuts, problems, nil
}
