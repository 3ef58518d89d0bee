package file

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"go.uber.org/goleak"

	"github.com/watershed-db/watershed/log"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// write makes a file of content and returns its path.
func write(t testing.TB, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func zip(t testing.TB, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// texts reads all that r holds, in batches of size, and returns the values, with a ! before an oversized one.
func texts(t testing.TB, r *Reader, size int) ([]string, error) {
	t.Helper()
	dst := make([]log.Record, size)
	out := []string{}
	for {
		n, err := r.Read(dst)
		for i := range dst[:n] {
			if dst[i].Offset != int64(len(out)) {
				t.Fatalf("record %d has offset %d", len(out), dst[i].Offset)
			}
			mark := ""
			if dst[i].Oversized {
				mark = "!"
			}
			out = append(out, mark+string(dst[i].Value))
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return out, err
		}
	}
}

func open(t testing.TB, path string, options Options) *Reader {
	t.Helper()
	r, err := Open(path, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func TestFrames(t *testing.T) {
	for _, c := range []struct {
		name    string
		format  Format
		max     int
		content string
		want    []string
	}{
		{"empty", JSONL, 0, "", []string{}},
		{"lines", JSONL, 0, "a\nb\n", []string{"a", "b"}},
		{"no newline at the end", JSONL, 0, "a\nb", []string{"a", "b"}},
		{"carriage returns", JSONL, 0, "a\r\nb\r\nc\r", []string{"a", "b", "c"}},
		{"one carriage return belongs to the record", JSONL, 0, "a\r\r\nb\rc\n", []string{"a\r", "b\rc"}},
		{"blank lines", JSONL, 0, "\n\na\n\r\n \t\n\nb\n  ", []string{"a", "b"}},
		{"byte order mark", JSONL, 0, "\xef\xbb\xbfa\n\xef\xbb\xbfb\n", []string{"a", "\xef\xbb\xbfb"}},
		{"byte order mark alone", JSONL, 0, "\xef\xbb\xbf", []string{}},
		{"half a mark", JSONL, 0, "\xef\xbb", []string{"\xef\xbb"}},
		{"quotes mean nothing", JSONL, 0, "\"a\nb\n", []string{"\"a", "b"}},
		{"just fits", JSONL, 4, "abcd\nabcd\r\nabcd", []string{"abcd", "abcd", "abcd"}},
		{"one too long", JSONL, 4, "a\nabcde\nb\n", []string{"a", "!abcde", "b"}},
		{"many too long", JSONL, 4, "abcdefghijklm\n\nb\nabcdefghij", []string{"!abcdef", "b", "!abcdef"}},
		{"carriage return at the bound", JSONL, 4, "abcd\r\nabcd\re\nb", []string{"abcd", "!abcd\re", "b"}},

		{"header only", CSV, 0, "h\n", []string{}},
		{"header", CSV, 0, "\xef\xbb\xbfh,i\r\na,b\r\n", []string{"a,b"}},
		{"a line of spaces is a record", CSV, 0, "h\n \n\n", []string{" "}},
		{"quoted newline", CSV, 0, "h\n1,\"a\nb\",2\n3\n", []string{"1,\"a\nb\",2", "3"}},
		{"quoted line end", CSV, 0, "h\n\"a\r\n\r\nb\"\r\n3\n", []string{"\"a\r\n\r\nb\"", "3"}},
		{"doubled quotes", CSV, 0, "h\n\"a\"\"\n\"\"b\"\n3\n", []string{"\"a\"\"\n\"\"b\"", "3"}},
		{"empty quoted", CSV, 0, "h\n\"\",\"\"\n3\n", []string{"\"\",\"\"", "3"}},
		{"quote inside a field", CSV, 0, "h\n5\" pipe,1\n6\" pipe,2\n", []string{"5\" pipe,1", "6\" pipe,2"}},
		{"text behind a quoted field", CSV, 0, "h\n\"a\"b\"c\n3\n", []string{"\"a\"b\"c", "3"}},
		{"quoted to the end", CSV, 0, "h\n1,\"a\nb\"", []string{"1,\"a\nb\""}},
		{"unclosed quote", CSV, 0, "h\n1,\"a\n2,b\n3,c", []string{"1,\"a", "2,b", "3,c"}},
		{"unclosed quote in the last line", CSV, 0, "h\n1\n2,\"a", []string{"1", "2,\"a"}},
		{"unclosed quote behind a good one", CSV, 0, "h\n\"a\nb\",\"c\nd\n", []string{"\"a\nb\",\"c", "d"}},
		{"unclosed quote, doubled ones behind", CSV, 0, "h\n\"a\n\"\",1\n\"\",2\n", []string{"\"a", "\"\",1", "\"\",2"}},
		{"quoted beyond the bound", CSV, 8, "h\n\"a\nb\nc\nd\ne\nf\n\"\ng\n",
			[]string{"\"a", "b", "c", "d", "e", "f", "\"", "g"}},
		{"too long and quoted", CSV, 4, "h\n\"abcdefghi,\n\"b\"\n", []string{"!\"abcde", "\"b\""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, batch := range []int{1, 3, 100} {
				for name, content := range map[string][]byte{"f": []byte(c.content), "f.gz": zip(t, []byte(c.content))} {
					r := open(t, write(t, name, content), Options{Format: c.format, MaxRecord: c.max, buffer: 16})
					got, err := texts(t, r, batch)
					if err != nil || fmt.Sprintf("%q", got) != fmt.Sprintf("%q", c.want) {
						t.Errorf("%s by %d: got %q, %v, want %q", name, batch, got, err, c.want)
					}
				}
			}
		})
	}
}

func TestHeaderAndTimes(t *testing.T) {
	at := time.Date(2015, 9, 12, 0, 46, 58, 771e6, time.UTC)
	r := open(t, write(t, "f.csv", []byte("\xef\xbb\xbf\"Date/Time\",Lat\r\n1,2\n3,4\n")), Options{Format: CSV, RecordTime: at})
	if got := string(r.Header()); got != `"Date/Time",Lat` {
		t.Errorf("the header is %q", got)
	}
	for i, want := range []string{"1,2", "3,4"} {
		rec, err := r.Next()
		if err != nil || string(rec.Value) != want || rec.Timestamp != at.UnixMilli() || rec.Offset != int64(i) {
			t.Errorf("got %+v, %v, want %s", rec, err, want)
		}
		if rec.Key != nil || rec.Headers != nil || r.Line() != int64(i)+2 {
			t.Errorf("got key %q, headers %v, line %d", rec.Key, rec.Headers, r.Line())
		}
	}
	for range 2 {
		if _, err := r.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("got %v at the end", err)
		}
	}
	r = open(t, write(t, "f.jsonl", []byte("{}")), Options{})
	if rec, err := r.Next(); err != nil || rec.Timestamp != log.NoTimestamp {
		t.Errorf("without a record time: %+v, %v", rec, err)
	}
	if _, err := Open(write(t, "h.csv", []byte("header,line")), Options{Format: CSV, MaxRecord: 4}); err == nil {
		t.Error("a header beyond the bound was taken")
	}
}

func TestLargeRecords(t *testing.T) {
	huge := strings.Repeat("x", 20<<20)
	content := `{"a":1}` + "\n" + huge + "\n" + `{"a":2}` + "\n" + huge[:DefaultMaxRecord] + "\r\n" + `{"a":3}`
	r := open(t, write(t, "f.jsonl", []byte(content)), Options{})
	var lengths []int
	for {
		rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if rec.Oversized != (rec.Offset == 1) {
			t.Errorf("record %d: oversized is %v", rec.Offset, rec.Oversized)
		}
		lengths = append(lengths, len(rec.Value))
	}
	if want := fmt.Sprint([]int{7, oversizedPrefix, 7, DefaultMaxRecord, 7}); fmt.Sprint(lengths) != want {
		t.Errorf("lengths are %v, want %s", lengths, want)
	}
	if len(r.buf) > DefaultMaxRecord+2*firstBuffer {
		t.Errorf("the buffer grew to %d bytes", len(r.buf))
	}
}

func TestBrokenOff(t *testing.T) {
	var lines bytes.Buffer
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 50_000 {
		fmt.Fprintf(&lines, "{\"n\":%d,\"r\":%d}\n", i, rnd.Int64())
	}
	packed := zip(t, lines.Bytes())
	flipped := bytes.Clone(packed)
	flipped[len(flipped)-6] ^= 1 // the checksum
	for name, c := range map[string]struct {
		content []byte
		want    error
		atOpen  bool
	}{
		"half.gz":   {packed[:len(packed)/2], ErrTruncated, false},
		"foot.gz":   {packed[:len(packed)-1], ErrTruncated, false},
		"head.gz":   {packed[:5], ErrTruncated, true},
		"empty.gz":  {nil, ErrTruncated, true},
		"plain.gz":  {lines.Bytes(), nil, true},
		"flip.gz":   {flipped, nil, false},
		"behind.gz": {append(bytes.Clone(packed), "garbage"...), nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, name, c.content)
			r, err := Open(path, Options{})
			if c.atOpen != (err != nil) {
				t.Fatalf("open: %v", err)
			}
			n := 0
			if err == nil {
				var got []string
				got, err = texts(t, r, 64)
				n = len(got)
				defer r.Close()
			}
			var place *Error
			if !errors.As(err, &place) || (c.want != nil && !errors.Is(err, c.want)) || !strings.Contains(err.Error(), path) {
				t.Fatalf("got %v", err)
			}
			if place.Line != int64(n)+1 {
				t.Errorf("broke off in line %d, behind %d records", place.Line, n)
			}
			if strings.HasPrefix(name, "half") && (n == 0 || place.Byte < int64(10*n)) {
				t.Errorf("%d records, %d bytes", n, place.Byte)
			}
		})
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none"), Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := Open(t.TempDir(), Options{}); err == nil {
		t.Error("a folder was opened")
	}
	two := append(bytes.Clone(packed), packed...)
	got, err := texts(t, open(t, write(t, "two.gz", two), Options{}), 64)
	if err != nil || len(got) != 100_000 {
		t.Errorf("two members: %d records, %v", len(got), err)
	}
}

func TestReadErrorComesBehindTheRecords(t *testing.T) {
	boom := errors.New("disk is gone")
	src := io.MultiReader(strings.NewReader("a\nb\nhalf"), iotest.ErrReader(boom))
	r, err := newReader("f", io.NopCloser(src), Options{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := texts(t, r, 10)
	var place *Error
	if !errors.Is(err, boom) || !errors.As(err, &place) || place.Line != 3 || place.Byte != 8 {
		t.Errorf("got %v", err)
	}
	if fmt.Sprint(got) != "[a b]" {
		t.Errorf("got %v", got)
	}
}

func TestClose(t *testing.T) {
	for name, content := range map[string][]byte{"f": []byte("a\nb\n"), "f.gz": zip(t, bytes.Repeat([]byte("abc\n"), 1e6))} {
		r := open(t, write(t, name, content), Options{})
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
		if _, err := r.Next(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s: got %v after Close", name, err)
		}
	}
}

func TestStdin(t *testing.T) {
	stdin := os.Stdin
	defer func() { os.Stdin = stdin }()
	for _, content := range [][]byte{[]byte("a\nb\n"), zip(t, []byte("a\nb\n"))} {
		f, err := os.Open(write(t, "f", content))
		if err != nil {
			t.Fatal(err)
		}
		os.Stdin = f
		r := open(t, Stdin, Options{})
		if got, err := texts(t, r, 10); err != nil || fmt.Sprint(got) != "[a b]" {
			t.Errorf("got %v, %v", got, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if err := f.Close(); err != nil {
			t.Errorf("standard input was closed: %v", err)
		}
	}
}

func TestNoAllocationPerRecord(t *testing.T) {
	content := bytes.Repeat([]byte("{\"a\":1,\"b\":\"some text\"}\n"), 100_000)
	path := write(t, "f", content)
	dst := make([]log.Record, 256)
	allocs := testing.AllocsPerRun(3, func() {
		r, err := Open(path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, err = r.Read(dst)
		}
		_ = r.Close()
	})
	if allocs > 50 {
		t.Errorf("%.0f allocations for 100,000 records", allocs)
	}
}
