package dev

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// ErrNotRunning says that no dev runs on the folder.
var ErrNotRunning = errors.New("no watershed dev runs on this folder")

// controlFile is DIR/control.json: how other processes of this user reach a running deployment.
type controlFile struct {
	Address string `json:"address"` // of an HTTP server on the loopback interface
	Token   string `json:"token"`   // which calls must bear
}

func controlName(dir string) string { return filepath.Join(dir, "control.json") }

// controlServer takes orders for a running deployment.
type controlServer struct {
	server *http.Server
	done   chan struct{}
	name   string
}

func serveControl(d *Deployment) (*controlServer, error) {
	l, err := net.Listen("tcp", local(0))
	if err != nil {
		return nil, fmt.Errorf("listen for orders: %w", err)
	}
	file := controlFile{Address: l.Addr().String(), Token: rand.Text()}
	text, err := json.Marshal(file)
	if err != nil {
		return nil, err
	}
	c := &controlServer{done: make(chan struct{}), name: controlName(d.options.Data)}
	if err := writeWhole(c.name, text, 0o600); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("listen for orders: %w", err)
	}
	c.server = &http.Server{Handler: file.guard(controlMux(d)), ReadHeaderTimeout: 5 * time.Second}
	go func() {
		defer close(c.done)
		_ = c.server.Serve(l) // until close
	}()
	return c, nil
}

func (c *controlServer) close() {
	_ = c.server.Close() // calls under way fail, as they should
	<-c.done
	_ = os.Remove(c.name) // a later dev writes it anew
}

func (f controlFile) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		if subtle.ConstantTimeCompare([]byte(token), []byte(f.Token)) != 1 {
			http.Error(w, "wrong token", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func controlMux(d *Deployment) http.Handler {
	mux := http.NewServeMux()
	order := func(pattern string, run func(r *http.Request) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := run(r); err != nil {
				http.Error(w, err.Error(), http.StatusConflict)
			}
		})
	}
	order("POST /restart", func(r *http.Request) error { return d.Restart(r.Context(), r.FormValue("node")) })
	order("POST /cut", func(r *http.Request) error { return d.Cut(r.FormValue("a"), r.FormValue("b")) })
	order("POST /heal", func(r *http.Request) error { return d.Heal(r.FormValue("a"), r.FormValue("b")) })
	return mux
}

// Restart tells the dev that runs on a folder to restart a node. It returns when the node is ready.
func Restart(ctx context.Context, dir, node string) error {
	return call(ctx, dir, "restart", url.Values{"node": {node}})
}

// Cut tells the dev that runs on a folder to part two regions.
func Cut(ctx context.Context, dir, a, b string) error {
	return call(ctx, dir, "cut", url.Values{"a": {a}, "b": {b}})
}

// Heal ends a Cut.
func Heal(ctx context.Context, dir, a, b string) error {
	return call(ctx, dir, "heal", url.Values{"a": {a}, "b": {b}})
}

func call(ctx context.Context, dir, order string, args url.Values) error {
	text, err := os.ReadFile(controlName(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", dir, ErrNotRunning)
	}
	if err != nil {
		return fmt.Errorf("reach the running dev: %w", err)
	}
	var file controlFile
	if err := json.Unmarshal(text, &file); err != nil {
		return fmt.Errorf("reach the running dev: %s: %w", controlName(dir), err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+file.Address+"/"+order+"?"+args.Encode(), nil)
	if err != nil {
		return fmt.Errorf("reach the running dev: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+file.Token)
	answer, err := http.DefaultClient.Do(req)
	var dial *net.OpError
	if errors.As(err, &dial) && dial.Op == "dial" {
		return fmt.Errorf("%s: %w", dir, ErrNotRunning) // it was killed, and left the file
	}
	if err != nil {
		return fmt.Errorf("reach the running dev: %w", err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<16))
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", order, strings.TrimSpace(string(body)))
	}
	return err
}
