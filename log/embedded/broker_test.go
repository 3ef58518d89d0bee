package embedded

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"
)

// childEnv makes the test binary a broker: DIR PORT.
const childEnv = "WATERSHED_TEST_BROKER"

func TestMain(m *testing.M) {
	if v := os.Getenv(childEnv); v != "" {
		dir, port, _ := strings.Cut(v, " ")
		n, _ := strconv.Atoi(port)
		err := Run(context.Background(), Config{DataDir: dir, Ports: []int{n}}, func(addrs []string) {
			fmt.Println(addrs[0])
		})
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// startChild runs a broker in a process of its own and returns it and its address.
func startChild(t *testing.T, dir string, port int) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", childEnv, dir, port))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the broker did not start: %v", err)
	}
	return cmd, strings.TrimSpace(line)
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func TestSurvivesKill(t *testing.T) {
	dir, port := t.TempDir(), freePort(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	const rounds, perRound = 3, 50
	for round := range rounds {
		child, addr := startChild(t, dir, port)
		if want := net.JoinHostPort("127.0.0.1", strconv.Itoa(port)); addr != want {
			t.Fatalf("listens on %s, want %s", addr, want)
		}
		cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{
			"rides": {0: kgo.NewOffset().At(0)}}), kgo.MetadataMinAge(50*time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		if round == 0 {
			if _, err := kadm.NewClient(cl).CreateTopic(ctx, 1, 1, nil, "rides"); err != nil {
				t.Fatal(err)
			}
		}
		for i := range perRound {
			rec := &kgo.Record{Topic: "rides", Value: strconv.AppendInt(nil, int64(round*perRound+i), 10)}
			if err := cl.ProduceSync(ctx, rec).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		for n := 0; n < (round+1)*perRound; {
			for _, rec := range cl.PollFetches(ctx).Records() {
				if rec.Offset != int64(n) || string(rec.Value) != strconv.Itoa(n) {
					t.Fatalf("round %d: %q stands at %d, want %d", round, rec.Value, rec.Offset, n)
				}
				n++
			}
			if ctx.Err() != nil {
				t.Fatalf("round %d: only %d records are there", round, n)
			}
		}
		cl.Close()
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = child.Wait()
	}
}

func TestSecondBrokerIsRefused(t *testing.T) {
	dir, port := t.TempDir(), freePort(t)
	b, err := Start(Config{DataDir: dir, Ports: []int{port}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Start(Config{DataDir: dir}); !errors.Is(err, ErrLocked) {
		t.Errorf("the same folder: got %v, want %v", err, ErrLocked)
	}
	if _, err := Start(Config{Ports: []int{port}}); !errors.Is(err, ErrPortInUse) {
		t.Errorf("the same port: got %v, want %v", err, ErrPortInUse)
	}
	b.Close()
	b.Close()
	if b, err = Start(Config{DataDir: dir, Ports: []int{port}}); err != nil {
		t.Fatalf("after the first was closed: %v", err)
	}
	b.Close()
}

func TestDataFolderThatCannotBeMade(t *testing.T) {
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(Config{DataDir: file + "/data"}); err == nil {
		t.Error("a folder inside a file was made")
	}
}
