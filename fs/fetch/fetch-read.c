#include <errno.h>
#include <string.h>

#include "fs/base/bytes.h"
#include "fs/fetch/fetch-donors.h"
#include "fs/fetch/fetch-packed.h"
#include "fs/fetch/fetch-private.h"
#include "fs/format/frame.h"

struct FetchReader {
	FrameDecoder *decoder;
	uint8_t *frame; /* FORMAT_FRAME_MAX */
	FetchTally tally;
};

int fetch_reader_new(FetchReader **ret_reader)
{
	_cleanup_(fetch_reader_free_p) FetchReader *reader = calloc(1, sizeof(*reader));
	if (!reader)
		return -ENOMEM;
	reader->frame = malloc(FORMAT_FRAME_MAX);
	if (!reader->frame)
		return -ENOMEM;
	int r = frame_decoder_new(&reader->decoder);
	if (r < 0)
		return r;
	*ret_reader = TAKE_PTR(reader);
	return 0;
}

FetchReader *fetch_reader_free(FetchReader *reader)
{
	if (reader) {
		(void)frame_decoder_free(reader->decoder);
		free(reader->frame);
		free(reader);
	}
	return NULL;
}

FetchTally *fetch_reader_tally(FetchReader *reader)
{
	return &reader->tally;
}

static int absent(const FetchBlob *blob)
{
	return blob->url ? -EAGAIN : -EIO;
}

/*
 * The frame at hand does not decode. If its digest is right, the publisher's blob is bad and fetching it again would not help;
 * otherwise it has changed on the disk since it was checked.
 */
static int judge_frame(FetchBlob *blob, const FetchReader *reader, uint32_t number, const Chunk *chunk)
{
	Digest digest;
	int r = digest_of(reader->frame, chunk->blob_size, &digest);
	if (r < 0)
		return r;
	if (digest_equal(&digest, &chunk->digest))
		return -EIO;
	cache_blob_forget(blob->cache, number);
	return -ENODATA;
}

/* Decodes a chunk from the cache. Errors: -ENODATA (absent, or found rotten), -EIO, -ENOMEM. */
static int decode_cached(FetchBlob *blob, FetchReader *reader, uint32_t number, const Chunk *chunk, uint8_t *content)
{
	if (!cache_blob_has(blob->cache, number))
		return -ENODATA;
	uint32_t size;
	int r = cache_blob_read(blob->cache, number, reader->frame, &size);
	if (r == 0) {
		r = frame_decode(reader->decoder, reader->frame, size, content, chunk->tar_size);
		if (r == -EBADMSG)
			r = judge_frame(blob, reader, number, chunk);
	}
	if (r == -ENODATA)
		(void)atomic_fetch_or(&blob->rotten[number / 8], (uint8_t)(1u << (number % 8)));
	return r;
}

static int decode(FetchBlob *blob, FetchReader *reader, uint32_t number, const Chunk *chunk, uint8_t *content)
{
	int r = decode_cached(blob, reader, number, chunk, content);
	if (r != -ENODATA)
		return r;
	uint32_t size;
	if (fetch_recent_get(&blob->fetcher->recent, blob->id, number, reader->frame, &size) < 0)
		return absent(blob);
	r = frame_decode(reader->decoder, reader->frame, size, content, chunk->tar_size);
	return r == -EBADMSG ? -EIO : r;
}

/* Decodes a chunk that is wanted in part, for this read and those that will want another part. */
static int decode_shared(FetchBlob *blob, FetchReader *reader, uint32_t number, const Chunk *chunk,
			 FetchSlot **ret_slot)
{
	FetchDecoded *decoded = &blob->fetcher->decoded;
	FetchSlot *slot = fetch_decoded_claim(decoded);
	if (!slot)
		return -ENOMEM;
	int r = decode(blob, reader, number, chunk, slot->content);
	if (r < 0) {
		fetch_decoded_unpin(decoded, slot);
		return r;
	}
	fetch_decoded_publish(decoded, slot, blob->id, number);
	*ret_slot = slot;
	return 0;
}

/* Copies [skip, skip + size) of a chunk to `to`. One wanted whole is decoded there and not kept: the kernel caches it. */
static int copy_chunk(FetchBlob *blob, FetchReader *reader, uint32_t number, const Chunk *chunk, uint32_t skip,
		      uint32_t size, uint8_t *to)
{
	FetchDecoded *decoded = &blob->fetcher->decoded;
	FetchSlot *slot = fetch_decoded_find(decoded, blob->id, number);
	reader->tally.chunks[slot ? FETCH_TIER_DECODED : FETCH_TIER_CACHE]++;
	if (!slot && size == chunk->tar_size)
		return decode(blob, reader, number, chunk, to);
	int r = slot ? 0 : decode_shared(blob, reader, number, chunk, &slot);
	if (r < 0)
		return r;
	memcpy(to, slot->content + skip, size);
	fetch_decoded_unpin(decoded, slot);
	return 0;
}

/* A copy that is not as it was written is no reason for a read to fail. */
static bool read_decoded(FetchBlob *blob, FetchReader *reader, uint64_t tar_offset, uint64_t size, void *buffer)
{
	const CacheDecoded *copy = atomic_load_explicit(&blob->decoded, memory_order_acquire);
	if (!copy)
		return false;
	if (cache_decoded_read(copy, tar_offset, size, buffer) == 0) {
		reader->tally.chunks[FETCH_TIER_CACHE]++;
		return true;
	}
	fetch_count(&blob->fetcher->metrics->decoded_failures, 1);
	net_loop_wake(blob->fetcher->loop); /* its thread tells */
	return false;
}

/* Are all of these chunks on this node now? */
static bool gather(FetchBlob *blob, FetchReader *reader, uint32_t first, uint32_t last)
{
	uint32_t absent_before = reader->tally.absent;
	for (uint32_t number = first; number <= last; number++) {
		if (fetch_at_hand(blob, number))
			continue;
		if (fetch_donor_copy(blob, number, reader->frame)) {
			reader->tally.chunks[FETCH_TIER_DONOR]++;
			continue;
		}
		Chunk chunk;
		chunk_table_get(cache_blob_table(blob->cache), number, &chunk);
		reader->tally.absent++;
		reader->tally.absent_bytes += chunk.blob_size;
	}
	return reader->tally.absent == absent_before;
}

int fetch_read(FetchBlob *blob, FetchReader *reader, uint64_t tar_offset, uint64_t size, void *buffer)
{
	const ChunkTable *table = cache_blob_table(blob->cache);
	uint8_t *to = buffer;
	if (!range_within(tar_offset, size, table->tar_size))
		return -EINVAL;
	if (size == 0 || read_decoded(blob, reader, tar_offset, size, buffer))
		return 0;
	fetch_pace_touch();
	/* Nothing is decoded for a range that will have to wait, but all that is on this node is brought together: the rest is fetched. */
	uint32_t first, count = chunk_table_find_range(table, tar_offset, tar_offset + size, &first);
	if (!gather(blob, reader, first, first + count - 1)) {
		if (!fetch_packed_read(blob, reader->decoder, reader->frame, tar_offset, size, buffer))
			return absent(blob);
		reader->tally.chunks[FETCH_TIER_DONOR]++;
		return 0;
	}

	for (uint32_t number = first; number < first + count; number++) {
		Chunk chunk;
		chunk_table_get(table, number, &chunk);
		uint32_t skip = (uint32_t)(tar_offset - chunk.tar_offset), part = chunk.tar_size - skip;
		if (part > size)
			part = (uint32_t)size;
		int r = copy_chunk(blob, reader, number, &chunk, skip, part, to);
		if (r < 0)
			return r;
		to += part;
		tar_offset += part;
		size -= part;
	}
	return 0;
}
