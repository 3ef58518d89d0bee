package kafka_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"github.com/watershed-db/watershed/log/embedded"
	"github.com/watershed-db/watershed/log/kafka"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func portOf(t *testing.T, addr string) int {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// closedAddr is an address on which nothing listens.
func closedAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestDialSaysThatNobodyAnswers(t *testing.T) {
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	addr := closedAddr(t)
	_, err := kafka.Dial(ctx, kafka.Config{Brokers: []string{addr}},
		hclog.New(&hclog.LoggerOptions{Output: &out, Level: hclog.Warn}))
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), addr) ||
		!strings.Contains(err.Error(), "connection refused") {
		t.Errorf("the error does not say what is wrong: %v", err)
	}
	if n := strings.Count(out.String(), "kafka can't be reached"); n < 1 || n > 4 {
		t.Errorf("%d lines were logged in a second:\n%s", n, out.String())
	}
}

func TestDialWaitsForTheBroker(t *testing.T) {
	addr := closedAddr(t)
	started := make(chan *embedded.Broker, 1)
	logged := make(chan struct{}, 100)
	go func() {
		<-logged // the first attempt has failed
		b, err := embedded.Start(embedded.Config{Ports: []int{portOf(t, addr)}})
		if err != nil {
			t.Error(err)
		}
		started <- b
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c, err := kafka.Dial(ctx, kafka.Config{Brokers: []string{addr}},
		hclog.New(&hclog.LoggerOptions{Output: writer(func(p []byte) (int, error) {
			logged <- struct{}{}
			return len(p), nil
		}), Level: hclog.Warn}))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	(<-started).Close()
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

func TestSASL(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(),
		kfake.Superuser("SCRAM-SHA-256", "app", "hunter2"), kfake.Superuser("PLAIN", "app", "hunter2"))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("WATERSHED_TEST_PASSWORD", "hunter2")
	t.Setenv("WATERSHED_TEST_WRONG", "hunter3")
	dial := func(mechanism string, password kafka.Secret) error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		c, err := kafka.Dial(ctx, kafka.Config{Brokers: cluster.ListenAddrs(),
			SASL: &kafka.SASL{Mechanism: mechanism, User: "app", Password: password}}, hclog.NewNullLogger())
		if err == nil {
			c.Close()
		}
		return err
	}
	if err := dial("scram-sha-256", "env:WATERSHED_TEST_PASSWORD"); err != nil {
		t.Error(err)
	}
	if err := dial("plain", kafka.Secret("file:"+file)); err != nil {
		t.Error(err)
	}
	// kfake hangs up on a wrong password; Kafka says so.
	cluster.ControlKey(int16(kmsg.SASLAuthenticate), func(req kmsg.Request) (kmsg.Response, error, bool) {
		resp := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		resp.ErrorCode = kerr.SaslAuthenticationFailed.Code
		return resp, nil, true
	})
	err = dial("plain", "env:WATERSHED_TEST_WRONG")
	if !errors.Is(err, kafka.ErrRefused) {
		t.Errorf("a wrong password: %v", err)
	}
	if err != nil && strings.Contains(err.Error(), "hunter") {
		t.Errorf("the error shows the password: %v", err)
	}
	if err := dial("plain", "env:WATERSHED_TEST_UNSET"); err == nil ||
		!strings.Contains(err.Error(), "WATERSHED_TEST_UNSET is not set") {
		t.Errorf("an unset variable: %v", err)
	}
}

func TestConfigValidate(t *testing.T) {
	good := kafka.Config{Brokers: []string{"localhost:9092"}}
	for name, c := range map[string]struct {
		change func(*kafka.Config)
		want   string
	}{
		"no brokers":   {func(c *kafka.Config) { c.Brokers = nil }, "brokers: at least one"},
		"no port":      {func(c *kafka.Config) { c.Brokers = []string{"localhost"} }, `"localhost" is not HOST:PORT`},
		"half a pair":  {func(c *kafka.Config) { c.TLS = &kafka.TLS{Cert: "c.pem"} }, "belong together"},
		"no mechanism": {func(c *kafka.Config) { c.SASL = &kafka.SASL{User: "u", Password: "env:X"} }, "sasl.mechanism"},
		"no user":      {func(c *kafka.Config) { c.SASL = &kafka.SASL{Mechanism: "plain", Password: "env:X"} }, "sasl.user"},
		"a password": {func(c *kafka.Config) {
			c.SASL = &kafka.SASL{Mechanism: "plain", User: "u", Password: "hunter2"}
		}, "not the secret itself"},
	} {
		bad := good
		c.change(&bad)
		err := bad.Validate()
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
		if s := fmt.Sprintf("%v %+v %#v %v", bad, bad, bad.SASL, err); strings.Contains(s, "hunter2") {
			t.Errorf("%s: the password shows: %s", name, s)
		}
	}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
}

// TestProducerOutlivesItsBroker writes while the broker goes and comes: every call that succeeded is in the log, and the
// producer works again by itself.
func TestProducerOutlivesItsBroker(t *testing.T) {
	dir := t.TempDir()
	b, err := embedded.Start(embedded.Config{DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	addr := b.Addrs()[0]
	defer func() { b.Close() }()
	c := newCluster(t, []string{addr})
	topic := c.topic(t, 1)
	p, err := kafka.NewProducer(c.client, kafka.ProducerConfig{Timeout: 500 * time.Millisecond}, logger(t))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	write := func(v string) error {
		return p.Produce(t.Context(), []kafka.Message{{Topic: topic, Value: []byte(v)}})
	}
	if err := write("before"); err != nil {
		t.Fatal(err)
	}
	b.Close()
	if err := write("while down"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the broker is down: got %v", err)
	}
	if b, err = embedded.Start(embedded.Config{DataDir: dir, Ports: []int{portOf(t, addr)}}); err != nil {
		t.Fatal(err)
	}
	for write("after") != nil {
		if t.Context().Err() != nil {
			t.Fatal("the producer did not come back")
		}
	}
	r := c.reader(t, kafka.ReaderConfig{})
	if err := r.Assign(t.Context(), c.position(t, topic, 0, false))[0]; err != nil {
		t.Fatal(err)
	}
	got := readUntil(t, r, 2)
	if string(got[0].Value) != "before" || string(got[len(got)-1].Value) != "after" {
		t.Errorf("got %q ... %q", got[0].Value, got[len(got)-1].Value)
	}
}

// TestPooledRecordsStay polls compressed batches in small bites and checks that no record changes before the next poll.
func TestPooledRecordsStay(t *testing.T) {
	b, err := embedded.Start(embedded.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	c := newCluster(t, b.Addrs())
	topic := c.topic(t, 1)
	const n = 5000
	p := c.producer(t)
	for from := 0; from < n; from += 500 {
		messages := make([]kafka.Message, 500)
		for i := range messages {
			messages[i] = kafka.Message{Topic: topic, Value: bytes.Repeat(fmt.Appendf(nil, "%06d,", from+i), 20)}
		}
		if err := p.Produce(t.Context(), messages); err != nil {
			t.Fatal(err)
		}
	}
	r := c.reader(t, kafka.ReaderConfig{MaxBytes: 4 << 10, MaxPartitionBytes: 4 << 10})
	if err := r.Assign(t.Context(), c.position(t, topic, 0, false))[0]; err != nil {
		t.Fatal(err)
	}
	for at := int64(0); at < n; {
		batches, err := r.Poll(t.Context(), 33)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range batches {
			for _, rec := range b.Records {
				if want := bytes.Repeat(fmt.Appendf(nil, "%06d,", at), 20); rec.Offset != at || !bytes.Equal(rec.Value, want) {
					t.Fatalf("at %d: got %d %.20q", at, rec.Offset, rec.Value)
				}
				at++
			}
		}
	}
}

func TestPollEndsWithItsContext(t *testing.T) {
	b, err := embedded.Start(embedded.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	c := newCluster(t, b.Addrs())
	r := c.reader(t, kafka.ReaderConfig{})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := r.Poll(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	r.Close()
	if _, err := r.Poll(t.Context(), 1); !errors.Is(err, kgo.ErrClientClosed) {
		t.Errorf("closed: got %v", err)
	}
}
