package file

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"testing"
	"testing/iotest"

	"github.com/watershed-db/watershed/log"
)

// slowFrames is the obvious twin of Reader: it has the whole text and looks at every byte. It returns false where the
// header is too long.
func slowFrames(text []byte, format Format, bound int) ([]string, bool) {
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	out, header := []string{}, format == CSV
	for len(text) > 0 {
		win := text[:min(len(text), bound+2)]
		length, oversized := slowEnd(win, format == CSV), false
		size := length + 1
		switch {
		case length >= 0:
		case len(win) < bound+2:
			length, size = len(win), len(win)
		default:
			oversized, length = true, len(win)
			size = length + bytes.IndexByte(text[length:], '\n') + 1
			if size == length {
				size = len(text)
			}
		}
		line := text[:length]
		text = text[size:]
		if !oversized {
			line = bytes.TrimSuffix(line, []byte{'\r'})
			if len(line) == 0 || (format == JSONL && len(bytes.Trim(line, " \t\r")) == 0) {
				continue
			}
		}
		oversized = oversized || len(line) > bound
		if header {
			if header = false; oversized {
				return nil, false
			}
			continue
		}
		if oversized {
			out = append(out, "!"+string(line[:min(len(line), oversizedPrefix)]))
			continue
		}
		out = append(out, string(line))
	}
	return out, true
}

// slowEnd returns where the newline stands that ends the record, or -1.
func slowEnd(win []byte, csv bool) int {
	none := map[int]bool{} // quotes that open nothing
	for {
		quoted, open := false, 0
		for i := 0; i < len(win); i++ {
			switch {
			case quoted && win[i] == '"' && i+1 < len(win) && win[i+1] == '"':
				i++
			case quoted:
				quoted = win[i] != '"'
			case win[i] == '\n':
				return i
			case csv && win[i] == '"' && !none[i] && (i == 0 || win[i-1] == ','):
				quoted, open = true, i
			}
		}
		if !quoted || !bytes.Contains(win[open:], newline) {
			return -1
		}
		none[open] = true
	}
}

// checkFrames compares Reader with its twin, over sources that give what they like at a time.
func checkFrames(t *testing.T, text []byte, format Format, bound int) {
	t.Helper()
	if len(text) > 1 && text[0] == 0x1f && text[1] == 0x8b {
		return // taken for gzip
	}
	want, ok := slowFrames(text, format, bound)
	for name, src := range map[string]io.Reader{
		"whole":    bytes.NewReader(text),
		"bytes":    iotest.OneByteReader(bytes.NewReader(text)),
		"data+EOF": iotest.DataErrReader(bytes.NewReader(text)),
	} {
		r, err := newReader("f", io.NopCloser(src), Options{Format: format, MaxRecord: bound, buffer: 8})
		if (err == nil) != ok {
			t.Fatalf("%s: format %d, bound %d, %q: open: %v", name, format, bound, text, err)
		}
		if err != nil {
			return
		}
		got, err := texts(t, r, 5)
		if err != nil || fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
			t.Fatalf("%s: format %d, bound %d, %q:\ngot  %q, %v\nwant %q", name, format, bound, text, got, err, want)
		}
	}
}

func FuzzFrames(f *testing.F) {
	for _, s := range []string{"", "a\nb", "h\r\n1,\"a\r\nb\"\"\",\"\"\n\"c\n\n,\"d", "\xef\xbb\xbf{}\n \t\r\n{\"a\":1}",
		"h\n\"\"\"x\n\"y\"\"\n,\"z", "0123456789\n\"0123\n4567\"89,\"\n\n"} {
		f.Add([]byte(s), uint8(8))
		f.Add([]byte(s), uint8(200))
	}
	f.Fuzz(func(t *testing.T, text []byte, bound uint8) {
		checkFrames(t, text, JSONL, int(bound)+1)
		checkFrames(t, text, CSV, int(bound)+1)
	})
}

// TestShortTexts goes through every text of up to seven of the bytes that matter.
func TestShortTexts(t *testing.T) {
	const alphabet = "a,\"\n"
	for length := range 8 {
		text := make([]byte, length)
		for n := range 1 << (2 * length) {
			for i := range text {
				text[i] = alphabet[n>>(2*i)&3]
			}
			checkFrames(t, text, CSV, 3)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	jsonl := bytes.Repeat([]byte(`{"time":"2015-09-12T00:46:58.771Z","channel":"#en.wikipedia","page":"Talk:Oswald","added":36}`+"\n"), 200_000)
	csv := append([]byte("\"Date/Time\",\"Lat\",\"Lon\",\"Base\"\n"),
		bytes.Repeat([]byte("\"4/1/2014 0:11:00\",40.769,-73.9549,\"B02512\"\n"), 200_000)...)
	for _, c := range []struct {
		name   string
		text   []byte
		format Format
	}{{"jsonl", jsonl, JSONL}, {"jsonl.gz", jsonl, JSONL}, {"csv", csv, CSV}} {
		b.Run(c.name, func(b *testing.B) {
			text := c.text
			if c.name == "jsonl.gz" {
				text = zip(b, text)
			}
			path := write(b, c.name, text)
			dst := make([]log.Record, 512)
			b.ReportAllocs()
			b.SetBytes(int64(len(c.text)))
			for b.Loop() {
				r, err := Open(path, Options{Format: c.format})
				if err != nil {
					b.Fatal(err)
				}
				for n := 0; err == nil; {
					n, err = r.Read(dst)
					_ = dst[:n]
				}
				_ = r.Close()
			}
		})
	}
}

func TestSharedData(t *testing.T) {
	for path, want := range map[string]int{
		"../../../shared/data/wiki-edits.jsonl.gz":                39199,
		"../../../shared/data/uber-pickups-2014-04-B02512.csv.gz": 0,
	} {
		if _, err := os.Stat(path); err != nil {
			t.Skip("the shared data is not here")
		}
		format := JSONL
		if want == 0 {
			format = CSV
		}
		r := open(t, path, Options{Format: format})
		got, err := texts(t, r, 100)
		if err != nil || len(got) == 0 || (want > 0 && len(got) != want) {
			t.Errorf("%s: %d records, %v", path, len(got), err)
		}
		t.Logf("%s: %d records, header %q, last %q", path, len(got), r.Header(), got[len(got)-1])
	}
}
