package kafka

import (
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// maxPooledBytes is the largest decompression buffer that is kept for the next fetch.
const maxPooledBytes = 8 << 20

// pool keeps the buffers of fetched batches from one poll to the next. A batch's buffers come back when every one of its
// records has been recycled, which Reader.Recycle does; what the client itself throws away goes to the collector.
type pool struct {
	bytes, records sync.Pool
}

var (
	_ kgo.PoolDecompressBytes = (*pool)(nil)
	_ kgo.PoolRecords         = (*pool)(nil)
)

// GetDecompressBytes implements kgo.PoolDecompressBytes.
func (p *pool) GetDecompressBytes(compressed []byte, _ kgo.CompressionCodecType) []byte {
	if b, ok := p.bytes.Get().(*[]byte); ok {
		return *b
	}
	return make([]byte, 0, min(4*len(compressed), maxPooledBytes))
}

// PutDecompressBytes implements kgo.PoolDecompressBytes.
func (p *pool) PutDecompressBytes(b []byte) {
	if cap(b) <= maxPooledBytes {
		p.bytes.Put(&b)
	}
}

// GetRecords implements kgo.PoolRecords.
func (p *pool) GetRecords(n int) []kgo.Record {
	if r, ok := p.records.Get().(*[]kgo.Record); ok && cap(*r) >= n {
		return (*r)[:0]
	}
	return make([]kgo.Record, 0, n)
}

// PutRecords implements kgo.PoolRecords.
func (p *pool) PutRecords(r []kgo.Record) { p.records.Put(&r) }
