package link

import (
	"errors"
	"testing"

	regionv1 "github.com/watershed-db/watershed/proto/watershed/region/v1"
)

// What ended a stream stands behind an assignment that nobody takes any more.
func TestEndedBehindAnAssignment(t *testing.T) {
	assignments, failed, broken := make(chan *regionv1.Assignment), make(chan error, 1), errors.New("broken")
	go func() { // as receive does
		assignments <- &regionv1.Assignment{}
		failed <- broken
	}()
	if err := ended(assignments, failed); !errors.Is(err, broken) {
		t.Fatalf("got %v", err)
	}
}
