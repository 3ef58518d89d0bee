package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Memory is a Store in memory, for tests. Its hook may look at calls and make them fail.
type Memory struct {
	// Hook, if set, is called before each call of a Store's method takes effect, with the method's name and the key; what
	// it returns is the call's error. It may call the Memory. It is not to be changed while calls are under way.
	Hook func(method, key string) error
	// Now tells the store's time (default: the system's).
	Now func() time.Time

	mu      sync.Mutex
	objects map[string]memoryObject
	written int
}

type memoryObject struct {
	body     []byte
	tag      Tag
	modified time.Time
}

var _ Store = (*Memory)(nil)

func (m *Memory) call(ctx context.Context, method, key string) error {
	if m.Hook != nil {
		if err := m.Hook(method, key); err != nil {
			return fmt.Errorf("%s %s: %w", strings.ToLower(method), key, err)
		}
	}
	return ctx.Err()
}

func (m *Memory) put(key string, body []byte) Tag {
	if m.objects == nil {
		m.objects = map[string]memoryObject{}
	}
	now := time.Now()
	if m.Now != nil {
		now = m.Now()
	}
	m.written++
	tag := Tag(strconv.Itoa(m.written))
	m.objects[key] = memoryObject{bytes.Clone(body), tag, now}
	return tag
}

// Get implements Store.
func (m *Memory) Get(ctx context.Context, key string, max int) ([]byte, Tag, error) {
	if err := m.call(ctx, "Get", key); err != nil {
		return nil, "", err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	o, ok := m.objects[key]
	switch {
	case !ok:
		return nil, "", fmt.Errorf("read %s: %w", key, ErrNotFound)
	case len(o.body) > max:
		return nil, "", fmt.Errorf("read %s: %w", key, ErrTooBig)
	}
	return bytes.Clone(o.body), o.tag, nil
}

// Create implements Store.
func (m *Memory) Create(ctx context.Context, key string, body []byte) (Tag, error) {
	if err := m.call(ctx, "Create", key); err != nil {
		return "", err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if o, ok := m.objects[key]; ok {
		if bytes.Equal(o.body, body) {
			return o.tag, nil
		}
		return "", fmt.Errorf("write %s: %w", key, ErrExists)
	}
	return m.put(key, body), nil
}

// Replace implements Store.
func (m *Memory) Replace(ctx context.Context, key string, body []byte, tag Tag) (Tag, error) {
	if err := m.call(ctx, "Replace", key); err != nil {
		return "", err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if o, ok := m.objects[key]; !ok || o.tag != tag {
		return "", fmt.Errorf("write %s: %w", key, ErrExists)
	}
	return m.put(key, body), nil
}

// Upload implements Store.
func (m *Memory) Upload(ctx context.Context, key string, body io.ReaderAt, size int64) error {
	if err := m.call(ctx, "Upload", key); err != nil {
		return err
	}
	whole := make([]byte, size)
	if _, err := io.ReadFull(io.NewSectionReader(body, 0, size), whole); err != nil {
		return fmt.Errorf("read what is to be %s: %w", key, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.put(key, whole)
	return nil
}

// Download implements Store.
func (m *Memory) Download(ctx context.Context, key string, w io.Writer) (int64, error) {
	if err := m.call(ctx, "Download", key); err != nil {
		return 0, err
	}
	m.mu.Lock()
	o, ok := m.objects[key]
	m.mu.Unlock()
	if !ok {
		return 0, fmt.Errorf("read %s: %w", key, ErrNotFound)
	}
	n, err := w.Write(o.body)
	return int64(n), err
}

// Stat implements Store.
func (m *Memory) Stat(ctx context.Context, key string) (Info, error) {
	if err := m.call(ctx, "Stat", key); err != nil {
		return Info{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	o, ok := m.objects[key]
	if !ok {
		return Info{}, fmt.Errorf("look at %s: %w", key, ErrNotFound)
	}
	return Info{key, int64(len(o.body)), o.modified}, nil
}

// List implements Store.
func (m *Memory) List(ctx context.Context, prefix string, each func(Info) bool) error {
	if err := m.call(ctx, "List", prefix); err != nil {
		return err
	}
	m.mu.Lock()
	var list []Info
	for _, key := range slices.Sorted(maps.Keys(m.objects)) {
		if o := m.objects[key]; strings.HasPrefix(key, prefix) {
			list = append(list, Info{key, int64(len(o.body)), o.modified})
		}
	}
	m.mu.Unlock()
	for _, info := range list {
		if !each(info) {
			break
		}
	}
	return nil
}

// Delete implements Store.
func (m *Memory) Delete(ctx context.Context, keys []string) error {
	var errs []error
	for _, key := range keys {
		if err := m.call(ctx, "Delete", key); err != nil {
			errs = append(errs, err)
			continue
		}
		m.mu.Lock()
		delete(m.objects, key)
		m.mu.Unlock()
	}
	return errors.Join(errs...)
}

// Abandon implements Store: uploads are whole at once here.
func (m *Memory) Abandon(ctx context.Context, prefix string, _ time.Time) (int, error) {
	return 0, m.call(ctx, "Abandon", prefix)
}

// Close implements Store.
func (*Memory) Close() {}
