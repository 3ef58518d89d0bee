package kafka

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// maxSecretBytes bounds the file a secret is read from.
const maxSecretBytes = 64 << 10

// Secret names where a secret is kept: env:NAME, an environment variable, or file:PATH, a file whose trailing newline is
// not part of it. The secret itself is never held: every use resolves it anew.
type Secret string

// Validate says whether s is a name. Its error never repeats s, which might be the secret itself.
func (s Secret) Validate() error {
	scheme, name, ok := strings.Cut(string(s), ":")
	switch {
	case s == "":
		return errors.New("is missing: want env:NAME or file:PATH")
	case !ok || (scheme != "env" && scheme != "file"):
		return errors.New("must be the name of a secret, env:NAME or file:PATH, not the secret itself")
	case name == "":
		return fmt.Errorf("names no secret behind the scheme %s", scheme)
	}
	return nil
}

// Resolve returns the secret.
func (s Secret) Resolve() (string, error) {
	if err := s.Validate(); err != nil {
		return "", err
	}
	scheme, name, _ := strings.Cut(string(s), ":")
	if scheme == "env" {
		v, ok := os.LookupEnv(name)
		if !ok || v == "" {
			return "", fmt.Errorf("environment variable %s is not set", name)
		}
		return v, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecretBytes+1))
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	if len(b) > maxSecretBytes {
		return "", fmt.Errorf("read secret: %s is longer than %d bytes", name, maxSecretBytes)
	}
	if b = bytes.TrimRight(b, "\r\n"); len(b) == 0 {
		return "", fmt.Errorf("read secret: %s is empty", name)
	}
	return string(b), nil
}

// String returns the secret's name, or "(redacted)" if s is none, so that a password put here by mistake is not shown.
func (s Secret) String() string {
	if s == "" || s.Validate() == nil {
		return string(s)
	}
	return "(redacted)"
}

// GoString is String: %#v must not show more.
func (s Secret) GoString() string { return s.String() }
