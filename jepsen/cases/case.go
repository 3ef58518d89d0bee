// Package cases is the suite of jobs that every way of running Watershed must agree on: for each a job file, its
// input, and the rows and counts that the oracle expects, so that a test only has to run it and compare bytes.
//
// Some cases read the real files beside the project and are left out where those are missing (ErrNoData); the others
// carry their own generated input, so that the suite is whole without them.
package cases

import (
	"bytes"
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/watershed-db/watershed/jepsen/oracle"
)

//go:embed testdata/*.yaml
var jobs embed.FS

// Input is one partition of a topic.
type Input struct {
	// Region is where the log is; it may be empty, which is a region like any other to the oracle.
	Region, Topic string
	Partition     int
	// Format is json or csv.
	Format string
	// Header is a CSV file's first line. It belongs to files alone: a Kafka topic holds the Lines only.
	Header []byte
	// Lines are the records' values, by offset from 0. None is empty and none holds a line end.
	Lines [][]byte
}

// Case is one job over one input. It is a value: copies share nothing that changes.
type Case struct {
	// Name is the name of the job too.
	Name string
	// Shows says what the case is for.
	Shows string
	// RecordTime is the log timestamp of every record. Where it is zero the job has `max_future: none`, and any
	// timestamp does.
	RecordTime time.Time
	// FilesOnly is set where the job can't read a Kafka topic, for its CSV names no columns.
	FilesOnly bool
	// Large is set where the input has more than 100,000 records.
	Large bool

	dressed bool // its files have a byte order mark, CRLF and blank lines
	exprs   map[string]oracle.Expr
	inputs  func() ([]Input, error)
}

// All returns every case, those on real data included.
func All() []Case {
	var all []Case
	for _, group := range [][]Case{rides(), wiki(), pickups()} {
		all = append(all, group...)
	}
	return all
}

// Named returns the case of that name.
func Named(name string) (Case, error) {
	for _, c := range All() {
		if c.Name == name {
			return c, nil
		}
	}
	return Case{}, fmt.Errorf("no case %q", name)
}

// Job is the job file's text.
func (c Case) Job() []byte {
	text, err := jobs.ReadFile("testdata/" + c.Name + ".yaml")
	if err != nil {
		panic("cases: a case has its job file embedded: " + err.Error())
	}
	return text
}

// Inputs returns the case's partitions, those of a region and topic numbered from 0 in the order in which they stand.
// The error is ErrNoData where the real data isn't there. It reads or generates anew at every call.
func (c Case) Inputs() ([]Input, error) {
	ins, err := c.inputs()
	if err != nil {
		return nil, fmt.Errorf("case %s: %w", c.Name, err)
	}
	return ins, nil
}

// Oracle returns the oracle for the case's job.
func (c Case) Oracle() (*oracle.Oracle, error) {
	o, err := oracle.New(c.Job(), c.exprs)
	if err != nil {
		return nil, fmt.Errorf("case %s: %w", c.Name, err)
	}
	return o, nil
}

// Logs returns the inputs as the oracle takes them, offsets from 0.
func (c Case) Logs() ([]oracle.Partition, error) {
	ins, err := c.Inputs()
	if err != nil {
		return nil, err
	}
	at := int64(oracle.NoLogTime)
	if !c.RecordTime.IsZero() {
		at = c.RecordTime.UnixMilli()
	}
	logs := make([]oracle.Partition, len(ins))
	for i, in := range ins {
		p := oracle.Partition{Region: in.Region, Topic: in.Topic, Number: in.Partition}
		if in.Header != nil {
			for _, name := range bytes.Split(in.Header, []byte(",")) {
				p.Columns = append(p.Columns, string(name))
			}
		}
		for offset, line := range in.Lines {
			p.Records = append(p.Records, oracle.Record{Offset: int64(offset), Value: line, LogTime: at})
		}
		logs[i] = p
	}
	return logs, nil
}

// Expect returns the rows that a bounded run over the inputs must print, byte for byte, and its counts.
func (c Case) Expect() ([]byte, oracle.Stats, error) {
	o, err := c.Oracle()
	if err != nil {
		return nil, oracle.Stats{}, err
	}
	logs, err := c.Logs()
	if err != nil {
		return nil, oracle.Stats{}, err
	}
	res, err := o.Run(logs)
	if err != nil {
		return nil, oracle.Stats{}, fmt.Errorf("case %s: %w", c.Name, err)
	}
	return res.Bytes(), res.Stats, nil
}

// WriteFiles writes the job file and the inputs into dir, an existing folder, and returns the arguments of `watershed
// run` for them: --job, an --input for each partition, and --record-time where the case has one.
func (c Case) WriteFiles(dir string) ([]string, error) {
	ins, err := c.Inputs()
	if err != nil {
		return nil, err
	}
	jobFile := filepath.Join(dir, c.Name+".yaml")
	if err := os.WriteFile(jobFile, c.Job(), 0o600); err != nil {
		return nil, err
	}
	args := []string{"--job", jobFile}
	for _, in := range ins {
		name := filepath.Join(dir, fmt.Sprintf("%s-%s-%s-%d.%s", c.Name, in.Region, in.Topic, in.Partition, in.Format))
		if err := os.WriteFile(name, c.file(in), 0o600); err != nil {
			return nil, err
		}
		topic := in.Topic
		if in.Region != "" {
			topic = in.Region + "/" + topic
		}
		args = append(args, "--input", topic+"="+name)
	}
	if !c.RecordTime.IsZero() {
		args = append(args, "--record-time", c.RecordTime.UTC().Format(time.RFC3339Nano))
	}
	return args, nil
}

// file is an input as a file's content. A dressed one has what a file may have and a record never sees.
func (c Case) file(in Input) []byte {
	var out bytes.Buffer
	end := "\n"
	if c.dressed {
		out.WriteString("\ufeff")
		end = "\r\n"
	}
	if in.Header != nil {
		out.Write(in.Header)
		out.WriteString(end)
	}
	for i, line := range in.Lines {
		out.Write(line)
		if i == len(in.Lines)-1 && c.dressed {
			break // and no line end at the end of the file
		}
		out.WriteString(end)
		if c.dressed && i%5 == 0 {
			out.WriteString(end)
		}
	}
	return out.Bytes()
}

// Split returns the case with the records of every partition dealt out to regions, in their order: each region has
// the same topics and partitions, and the job's meaning over them is another, since what is late is judged by source.
func Split(c Case, regions ...string) Case {
	whole := c.inputs
	c.inputs = func() ([]Input, error) {
		ins, err := whole()
		if err != nil {
			return nil, err
		}
		var out []Input
		for r, region := range regions {
			for p, in := range ins {
				part := in
				part.Region, part.Lines = region, nil
				for i, line := range in.Lines {
					if deal(p, i, len(regions)) == r {
						part.Lines = append(part.Lines, line)
					}
				}
				out = append(out, part)
			}
		}
		return out, nil
	}
	return c
}

// deal gives record i of partition p to one of n regions: at random, and for ever the same.
func deal(p, i, n int) int {
	x := uint64(p)<<32 + uint64(i) + 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return int((x ^ x>>31) % uint64(n))
}
