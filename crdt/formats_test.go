package crdt

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// TestNewerIsRefused: an encoding of a later version is refused, and the message says both.
func TestNewerIsRefused(t *testing.T) {
	decoders := map[string][]func([]byte) error{
		"cell": {func(b []byte) error { _, err := DecodeCell(b); return err }},
		"point": {
			func(b []byte) error { _, err := DecodePoint(b); return err },
			func(b []byte) error { _, err := DecodeFrontier(b); return err },
		},
		"advance": {
			func(b []byte) error { _, err := DecodeAdvance(b); return err },
			func(b []byte) error { _, err := DecodeInstall(b); return err },
		},
	}
	for name, version := range Formats() {
		if len(decoders[name]) == 0 {
			t.Errorf("%s has no decoder here", name)
		}
		for i, decode := range decoders[name] {
			err := decode([]byte{byte(version + 1), 0, 0, 0})
			both := fmt.Sprintf("version %d, this build reads %d", version+1, version)
			if !errors.Is(err, ErrEncoding) || !strings.Contains(err.Error(), both) {
				t.Errorf("%s, decoder %d: %v", name, i, err)
			}
		}
	}
}
