package bounded

import (
	"errors"
	"fmt"
	"strings"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/log/file"
	"github.com/watershed-db/watershed/processor/job"
)

// DefaultRegion is the region of an input that names none.
const DefaultRegion crdt.RegionID = "local"

// Stdin is the file name that stands for standard input.
const Stdin = file.Stdin

// ErrInputs is wrapped by errors about inputs that do not fit the job or each other.
var ErrInputs = errors.New("inputs do not fit the job")

// Input is one partition of a topic.
type Input struct {
	Region crdt.RegionID
	Topic  string
	File   string // its path, or Stdin; what ends in .gz is decompressed
}

// ParseInput reads [REGION/]TOPIC=FILE.
func ParseInput(s string) (Input, error) {
	name, file, ok := strings.Cut(s, "=")
	if !ok || name == "" || file == "" {
		return Input{}, fmt.Errorf("input %q: want [REGION/]TOPIC=FILE", s)
	}
	in := Input{Region: DefaultRegion, Topic: name, File: file}
	if region, topic, ok := strings.Cut(name, "/"); ok {
		in.Region, in.Topic = crdt.RegionID(region), topic
		if err := in.Region.Validate(); err != nil {
			return Input{}, fmt.Errorf("input %q: %w", s, err)
		}
	}
	if in.Topic == "" || len(in.Topic) > crdt.MaxTopic {
		return Input{}, fmt.Errorf("input %q: a topic has 1 to %d bytes", s, crdt.MaxTopic)
	}
	return in, nil
}

// part is one partition and the sources that read it: one for each of the job's inputs over its topic.
type part struct {
	Input
	number  int // as it was given, from 0
	sources []crdt.Source
	format  job.Format
}

// plan numbers the partitions of each region's topics in the order given, and gives each the sources that read it.
func plan(j *job.Job, inputs []Input) ([]part, error) {
	type topic struct {
		region crdt.RegionID
		name   string
	}
	partitions := make(map[topic]int32)
	fed := make([]bool, len(j.Inputs))
	stdin := false
	parts := make([]part, 0, len(inputs))
	for n, in := range inputs {
		if in.File == Stdin && stdin {
			return nil, fmt.Errorf("%w: standard input is given twice", ErrInputs)
		}
		stdin = stdin || in.File == Stdin
		t := topic{in.Region, in.Topic}
		p := part{Input: in, number: n}
		for i := range j.Inputs {
			if j.Inputs[i].Topic != in.Topic {
				continue
			}
			if f := j.Inputs[i].Format; p.format != 0 && p.format != f {
				return nil, fmt.Errorf("%w: topic %s is %s in one source and %s in another", ErrInputs, in.Topic, p.format, f)
			}
			p.format, fed[i] = j.Inputs[i].Format, true
			p.sources = append(p.sources, crdt.Source{Input: uint16(i), Region: in.Region, Topic: in.Topic,
				Partition: partitions[t]})
		}
		if p.sources == nil {
			return nil, fmt.Errorf("%w: the job has no source over topic %q", ErrInputs, in.Topic)
		}
		partitions[t]++
		parts = append(parts, p)
	}
	for i, ok := range fed {
		if !ok {
			return nil, fmt.Errorf("%w: the source over topic %q has no input", ErrInputs, j.Inputs[i].Topic)
		}
	}
	return parts, nil
}
