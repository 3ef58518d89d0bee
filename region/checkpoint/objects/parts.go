package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// abortWithin bounds the removal of an upload that failed. What a crash leaves is Abandon's.
const abortWithin = 10 * time.Second

// uploadParts writes a big object part by part. It is seen when the last request of it has succeeded.
func (s *S3) uploadParts(ctx context.Context, key string, body io.ReaderAt, size int64) (err error) {
	bucket, whole := s.bucketKey(key)
	begun, err := s.beginParts(ctx, bucket, whole)
	if err != nil {
		return s.fail("begin to write", key, err)
	}
	defer func() {
		if err == nil {
			return
		}
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortWithin)
		defer cancel()
		_, e := s.client.AbortMultipartUpload(clean, &s3.AbortMultipartUploadInput{Bucket: bucket, Key: whole, UploadId: begun.UploadId})
		if e != nil {
			err = errors.Join(err, s.fail("give up", key, e))
		}
	}()
	part := max(s.o.PartBytes, (size+maxParts-1)/maxParts)
	buffer := make([]byte, part)
	var done []types.CompletedPart
	for at := int64(0); at < size; at += part {
		piece := buffer[:min(part, size-at)]
		if _, err := io.ReadFull(io.NewSectionReader(body, at, int64(len(piece))), piece); err != nil {
			return fmt.Errorf("read what is to be %s: %w", key, err)
		}
		p, err := s.uploadPart(ctx, begun, piece, int32(len(done)+1))
		if err != nil {
			return s.fail(fmt.Sprintf("write part %d of", len(done)+1), key, err)
		}
		done = append(done, p)
	}
	ending, cancel := s.within(ctx)
	defer cancel()
	_, err = s.client.CompleteMultipartUpload(ending, &s3.CompleteMultipartUploadInput{
		Bucket: bucket, Key: whole, UploadId: begun.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: done},
	})
	if err != nil {
		return s.fail("end to write", key, err)
	}
	return nil
}

// beginParts names the checksum here as well as in each part: servers differ in what they make of one alone.
func (s *S3) beginParts(ctx context.Context, bucket, whole *string) (*s3.CreateMultipartUploadOutput, error) {
	ctx, cancel := s.within(ctx)
	defer cancel()
	return s.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{
		Bucket: bucket, Key: whole, ChecksumAlgorithm: types.ChecksumAlgorithmCrc32,
	})
}

func (s *S3) uploadPart(ctx context.Context, begun *s3.CreateMultipartUploadOutput, piece []byte, number int32) (
	p types.CompletedPart, err error) {
	if err := s.pace.wait(ctx, len(piece)); err != nil {
		return p, err
	}
	ctx, cancel := s.within(ctx)
	defer cancel()
	out, err := s.client.UploadPart(ctx, &s3.UploadPartInput{
		Bucket: begun.Bucket, Key: begun.Key, UploadId: begun.UploadId, PartNumber: aws.Int32(number),
		Body: bytes.NewReader(piece), ContentLength: aws.Int64(int64(len(piece))), ChecksumAlgorithm: types.ChecksumAlgorithmCrc32,
	})
	if err != nil {
		return p, err
	}
	return types.CompletedPart{ETag: out.ETag, PartNumber: aws.Int32(number), ChecksumCRC32: out.ChecksumCRC32}, nil
}

// Abandon implements Store.
func (s *S3) Abandon(ctx context.Context, prefix string, before time.Time) (int, error) {
	bucket, whole := s.bucketKey(prefix)
	pages := s3.NewListMultipartUploadsPaginator(s.client, &s3.ListMultipartUploadsInput{Bucket: bucket, Prefix: whole})
	removed := 0
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return removed, s.fail("list unfinished uploads under", prefix, err)
		}
		for _, u := range page.Uploads {
			if u.Initiated == nil || !u.Initiated.Before(before) {
				continue
			}
			_, err := s.client.AbortMultipartUpload(ctx,
				&s3.AbortMultipartUploadInput{Bucket: bucket, Key: u.Key, UploadId: u.UploadId})
			if err != nil {
				return removed, s.fail("give up", aws.ToString(u.Key), err)
			}
			removed++
		}
	}
	return removed, nil
}
