package region

import (
	"slices"

	"github.com/watershed-db/watershed/failover/ownership"
	"github.com/watershed-db/watershed/region/config"
)

// foundOwned returns the record of ownership that every shard of a new deployment begins with: all regions are members under
// their configured numbers, and hold the first entry of the configured owner's epoch.
func foundOwned(c config.Config) ownership.Record {
	conf := ownership.Config{Number: 1}
	for _, r := range c.Regions {
		id := ownership.MemberID(r.Member)
		conf.Members = append(conf.Members, ownership.Member{ID: id, Region: r.Name})
		conf.Highest = max(conf.Highest, id)
	}
	slices.SortFunc(conf.Members, func(a, b ownership.Member) int { return int(a.ID) - int(b.ID) })
	self, _ := c.Member(c.Region)
	owner, _ := c.Member(c.Owner)
	return ownership.FoundOwned(ownership.MemberID(self.Member), conf, ownership.MemberID(owner.Member))
}
