package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// pingTimeout bounds one attempt to reach the cluster.
	pingTimeout = 5 * time.Second
	// firstBackoff and maxBackoff bound the pause between two attempts; it doubles.
	firstBackoff, maxBackoff = 250 * time.Millisecond, 5 * time.Second
)

// ErrRefused is a cluster that answers, and will not let this client in: authentication or authorization. Trying again
// does not help.
var ErrRefused = errors.New("the cluster refuses this client")

// Client asks a cluster about its topics and reads single records. It is safe for concurrent use.
type Client struct {
	config Config
	logger hclog.Logger
	cl     *kgo.Client
	adm    *kadm.Client
}

// Dial connects to a cluster. While no broker can be reached it logs that at once and then ever less often, and tries
// again until ctx is done; its error then says why the last attempt failed.
func Dial(ctx context.Context, config Config, logger hclog.Logger) (*Client, error) {
	opts, err := config.options()
	if err != nil {
		return nil, fmt.Errorf("kafka %s: %w", config, err)
	}
	opts = append(opts, kgo.WithLogger(newClientLogger(logger)), kgo.RetryTimeout(10*time.Second))
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("kafka %s: %w", config, err)
	}
	c := &Client{config: config, logger: logger, cl: cl, adm: kadm.NewClient(cl)}
	if err := c.await(ctx); err != nil {
		cl.Close()
		return nil, err
	}
	return c, nil
}

// await pings until a broker answers.
func (c *Client) await(ctx context.Context) error {
	for backoff := firstBackoff; ; backoff = min(2*backoff, maxBackoff) {
		attempt, cancel := context.WithTimeout(ctx, pingTimeout)
		err := c.cl.Ping(attempt)
		cancel()
		switch {
		case err == nil:
			return nil
		case refused(err):
			return fmt.Errorf("kafka %s: %w: %w", c.config, ErrRefused, err)
		case ctx.Err() != nil:
			return fmt.Errorf("kafka %s: can't be reached: %w (%w)", c.config, err, ctx.Err())
		}
		c.logger.Warn("kafka can't be reached, trying again", "brokers", c.config.Brokers, "error", err, "in", backoff)
		select {
		case <-ctx.Done():
			return fmt.Errorf("kafka %s: can't be reached: %w (%w)", c.config, err, ctx.Err())
		case <-time.After(backoff):
		}
	}
}

// refused says whether the cluster rejects who we are.
func refused(err error) bool {
	for _, e := range []error{kerr.SaslAuthenticationFailed, kerr.UnsupportedSaslMechanism, kerr.IllegalSaslState,
		kerr.ClusterAuthorizationFailed, kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Close closes the connections. Readers and producers have their own.
func (c *Client) Close() { c.cl.Close() }
