// Package kafka reads partitions of a Kafka cluster from explicit positions, writes to it, and asks it about its logs.
// It never resets a position: where a log does not fit, the partition stops with one of package log's errors.
package kafka

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// Config says how to reach a cluster. It holds names of secrets, never secrets, so it can be printed and stored.
type Config struct {
	// Brokers are HOST:PORT of at least one broker; the rest are learnt from it.
	Brokers []string `yaml:"brokers"`
	// TLS encrypts the connections; nil is plain text.
	TLS *TLS `yaml:"tls,omitempty"`
	// SASL authenticates; nil is anonymous (or, with TLS, by the client's certificate).
	SASL *SASL `yaml:"sasl,omitempty"`
	// ClientID is what brokers' logs and quotas call this client. Default: watershed.
	ClientID string `yaml:"client_id,omitempty"`
}

// TLS names the files of a TLS connection. Files are read when a client is made.
type TLS struct {
	// CA is a PEM file of the authorities to trust. Default: the system's.
	CA string `yaml:"ca,omitempty"`
	// Cert and Key are PEM files of the client's certificate; both or neither.
	Cert string `yaml:"cert,omitempty"`
	Key  string `yaml:"key,omitempty"`
	// ServerName is the name to verify instead of the broker's host.
	ServerName string `yaml:"server_name,omitempty"`
}

// SASL is a user and the name of its password.
type SASL struct {
	// Mechanism is plain, scram-sha-256 or scram-sha-512.
	Mechanism string `yaml:"mechanism"`
	User      string `yaml:"user"`
	Password  Secret `yaml:"password"`
}

// Validate checks everything that can be checked without opening a file or a connection, and names every fault.
func (c Config) Validate() error {
	var errs []error
	if len(c.Brokers) == 0 {
		errs = append(errs, errors.New("brokers: at least one HOST:PORT is needed"))
	}
	for _, b := range c.Brokers {
		if host, port, err := net.SplitHostPort(b); err != nil || host == "" || port == "" {
			errs = append(errs, fmt.Errorf("brokers: %q is not HOST:PORT", b))
		}
	}
	if t := c.TLS; t != nil && (t.Cert == "") != (t.Key == "") {
		errs = append(errs, errors.New("tls: cert and key belong together, one of them is missing"))
	}
	if s := c.SASL; s != nil {
		switch s.Mechanism {
		case "plain", "scram-sha-256", "scram-sha-512":
		default:
			errs = append(errs, fmt.Errorf("sasl.mechanism: %q is none of plain, scram-sha-256, scram-sha-512",
				s.Mechanism))
		}
		if s.User == "" {
			errs = append(errs, errors.New("sasl.user: is missing"))
		}
		if err := s.Password.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("sasl.password: %w", err))
		}
	}
	return errors.Join(errs...)
}

// String names the brokers and how they are reached.
func (c Config) String() string {
	s := strings.Join(c.Brokers, ",")
	if c.TLS != nil {
		s += " (tls)"
	}
	if c.SASL != nil {
		s += fmt.Sprintf(" (%s as %s)", c.SASL.Mechanism, c.SASL.User)
	}
	return s
}

// options returns what every client of the cluster shares.
func (c Config) options() ([]kgo.Opt, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	id := c.ClientID
	if id == "" {
		id = "watershed"
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...),
		kgo.ClientID(id),
		kgo.DialTimeout(5 * time.Second),
		kgo.MetadataMinAge(500 * time.Millisecond),
		kgo.MetadataMaxAge(time.Minute),
	}
	if c.TLS != nil {
		t, err := c.TLS.load()
		if err != nil {
			return nil, fmt.Errorf("tls: %w", err)
		}
		opts = append(opts, kgo.DialTLSConfig(t))
	}
	if c.SASL != nil {
		opt, err := c.SASL.option()
		if err != nil {
			return nil, fmt.Errorf("sasl.password: %w", err)
		}
		opts = append(opts, opt)
	}
	return opts, nil
}

func (t *TLS) load() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fmt.Errorf("read ca: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read ca: %s holds no PEM certificate", t.CA)
		}
	}
	if t.Cert != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fmt.Errorf("read client certificate: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

func (s *SASL) option() (kgo.Opt, error) {
	password, err := s.Password.Resolve()
	if err != nil {
		return nil, err
	}
	switch s.Mechanism {
	case "plain":
		return kgo.SASL(plain.Auth{User: s.User, Pass: password}.AsMechanism()), nil
	case "scram-sha-256":
		return kgo.SASL(scram.Auth{User: s.User, Pass: password}.AsSha256Mechanism()), nil
	default:
		return kgo.SASL(scram.Auth{User: s.User, Pass: password}.AsSha512Mechanism()), nil
	}
}
