package group

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// toy is a Machine that remembers which command came at which index. Like the real one it persists by itself and late:
// what it has flushed stands in its folder, what it has not is gone when a new toy is opened on the same folder.
type toy struct {
	dir string

	mu struct {
		sync.Mutex
		toyState
		replayed []uint64 // indexes applied since it was opened
		restored int
	}
}

type toyState struct {
	Index    uint64
	Commands map[uint64]string
	Count    map[string]int // how often each command was applied
}

func openToy(dir string) (*toy, error) {
	m := &toy{dir: dir}
	m.mu.Commands, m.mu.Count = make(map[uint64]string), make(map[string]int)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(filepath.Join(dir, "state.json"))
	if os.IsNotExist(err) {
		return m, nil
	}
	if err != nil {
		return nil, err
	}
	return m, json.Unmarshal(raw, &m.mu.toyState)
}

func (m *toy) Apply(index uint64, command []byte) any {
	m.mu.Lock()
	defer m.mu.Unlock()
	if index <= m.mu.Index {
		panic(fmt.Sprintf("index %d after %d", index, m.mu.Index))
	}
	m.mu.Index = index
	m.mu.Commands[index] = string(command)
	m.mu.Count[string(command)]++
	m.mu.replayed = append(m.mu.replayed, index)
	return "applied " + string(command)
}

func (m *toy) AppliedIndex() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.Index
}

func (m *toy) flush() error { return m.write(m.dir) }

func (m *toy) write(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	raw, err := json.Marshal(m.mu.toyState)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "state.json"), raw, 0o644)
}

func (m *toy) Checkpoint(dir string) (uint64, error) {
	if err := m.flush(); err != nil {
		return 0, err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return 0, err
	}
	return m.AppliedIndex(), m.write(dir)
}

func (m *toy) Restore(dir string) error {
	raw, err := os.ReadFile(filepath.Join(dir, "state.json"))
	if err != nil {
		return err
	}
	var state toyState
	if err := json.Unmarshal(raw, &state); err != nil {
		return err
	}
	m.mu.Lock()
	m.mu.toyState = state
	m.mu.restored++
	m.mu.Unlock()
	return m.flush()
}

func (m *toy) count(command string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.Count[command]
}
