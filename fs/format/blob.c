#include "fs/format/blob.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>
#include <xxhash.h>
#include <zstd.h>

#include "fs/base/bytes.h"

#define FOOTER_MAGIC "imgfsblb"

/* Offsets within the footer's payload, which follows the header of the skippable frame. */
enum {
	AT_VERSION = 8,
	AT_FEATURES = 12,
	AT_TAR_SIZE = 16,
	AT_INDEX_OFFSET = 24,
	AT_INDEX_SIZE = 32,
	AT_IMAGE_SIZE = 40,
	AT_INDEX_DIGEST = 48,
	AT_DIFF_ID = 80,
	AT_CHUNK_COUNT = 112,
	AT_RESERVED = 116,
	AT_SUM = 128,
	PAYLOAD_SIZE = 136,
};

static void put_skippable(uint8_t *to, uint32_t magic, uint32_t size)
{
	store_le32(to, magic);
	store_le32(to + 4, size);
}

void blob_footer_encode(const BlobFooter *footer, uint8_t ret_bytes[static FORMAT_FOOTER_SIZE])
{
	put_skippable(ret_bytes, FORMAT_FOOTER_MAGIC, PAYLOAD_SIZE);
	uint8_t *to = ret_bytes + FORMAT_SKIPPABLE_HEADER;
	memset(to, 0, PAYLOAD_SIZE);
	memcpy(to, FOOTER_MAGIC, 8);
	store_le32(to + AT_VERSION, FORMAT_VERSION);
	store_le64(to + AT_TAR_SIZE, footer->tar_size);
	store_le64(to + AT_INDEX_OFFSET, footer->index_offset);
	store_le64(to + AT_INDEX_SIZE, footer->index_size);
	store_le64(to + AT_IMAGE_SIZE, footer->image_size);
	memcpy(to + AT_INDEX_DIGEST, footer->index_digest.bytes, DIGEST_SIZE);
	memcpy(to + AT_DIFF_ID, footer->diff_id.bytes, DIGEST_SIZE);
	store_le32(to + AT_CHUNK_COUNT, footer->chunk_count);
	store_le64(to + AT_SUM, XXH64(to, AT_SUM, 0));
}

/* Do the lengths of a footer agree with each other and with the blob's? */
static bool footer_consistent(const BlobFooter *footer, uint64_t blob_size)
{
	if (!range_within(footer->index_offset, footer->index_size, blob_size) ||
	    blob_size - footer->index_offset - footer->index_size != FORMAT_FOOTER_SIZE)
		return false;
	uint64_t tar_max = (uint64_t)footer->chunk_count * FORMAT_CHUNK_MAX;
	return footer->index_size > FORMAT_SKIPPABLE_HEADER && footer->image_size <= FORMAT_IMAGE_MAX &&
	       footer->tar_size >= footer->chunk_count && footer->tar_size <= tar_max;
}

int blob_footer_decode(const uint8_t bytes[static FORMAT_FOOTER_SIZE], uint64_t blob_size, BlobFooter *ret_footer,
		       Error *error)
{
	const uint8_t *from = bytes + FORMAT_SKIPPABLE_HEADER;
	if (load_le32(bytes) != FORMAT_FOOTER_MAGIC || load_le32(bytes + 4) != PAYLOAD_SIZE ||
	    memcmp(from, FOOTER_MAGIC, 8) != 0)
		return error_set(error, -EBADMSG,
				 "the blob does not end in an imgfs footer: it is cut short, or not an imgfs blob; "
				 "fetch or export it again");
	uint32_t version = load_le32(from + AT_VERSION), features = load_le32(from + AT_FEATURES);
	if (load_le64(from + AT_SUM) != XXH64(from, AT_SUM, 0))
		return error_set(error, -EBADMSG, "the footer of the blob is rotten; fetch or export it again");
	if (version != FORMAT_VERSION || features != 0)
		return error_set(error, -EPROTONOSUPPORT,
				 "the blob is of format version %u with features 0x%x, and this imgfs reads version %u "
				 "without features only; upgrade imgfs",
				 version, features, FORMAT_VERSION);

	BlobFooter footer = {
		.tar_size = load_le64(from + AT_TAR_SIZE),
		.index_offset = load_le64(from + AT_INDEX_OFFSET),
		.index_size = load_le64(from + AT_INDEX_SIZE),
		.image_size = load_le64(from + AT_IMAGE_SIZE),
		.chunk_count = load_le32(from + AT_CHUNK_COUNT),
	};
	memcpy(footer.index_digest.bytes, from + AT_INDEX_DIGEST, DIGEST_SIZE);
	memcpy(footer.diff_id.bytes, from + AT_DIFF_ID, DIGEST_SIZE);
	static const uint8_t zeros[AT_SUM - AT_RESERVED];
	if (memcmp(from + AT_RESERVED, zeros, sizeof(zeros)) != 0 || !footer_consistent(&footer, blob_size))
		return error_set(error, -EBADMSG,
				 "the footer contradicts the blob's %" PRIu64 " bytes; fetch or export it again",
				 blob_size);
	*ret_footer = footer;
	return 0;
}

#define SMALL_INDEX  ((size_t)4 << 20)
#define MEDIUM_INDEX ((size_t)64 << 20)

/*
 * A small index is worth a slow search: it crosses the wire once a node and version. Most of it cannot be compressed at all, and these
 * parameters lose less time on that than level 19's own, for 1 % of its size (docs/decisions/0002-levels.md).
 */
static const struct {
	ZSTD_cParameter parameter;
	int value;
} small_parameters[] = {
	{ ZSTD_c_compressionLevel, 19 }, { ZSTD_c_strategy, ZSTD_btopt }, { ZSTD_c_searchLog, 1 },
	{ ZSTD_c_minMatch, 3 },          { ZSTD_c_targetLength, 32 },
};

/* One-shot compression, which states the content size in the frame; without a checksum. 0 when memory is out. */
static size_t compress_index(const void *image, size_t image_size, bool fast, void *to, size_t room)
{
	ZSTD_CCtx *context = ZSTD_createCCtx();
	size_t r = 0;
	if (!context)
		return 0;
	if (image_size < SMALL_INDEX && !fast) {
		for (size_t i = 0; i < ELEMENTS(small_parameters) && !ZSTD_isError(r); i++)
			r = ZSTD_CCtx_setParameter(context, small_parameters[i].parameter, small_parameters[i].value);
	} else {
		r = ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, image_size < MEDIUM_INDEX ? 9 : 3);
	}
	if (!ZSTD_isError(r))
		r = ZSTD_compress2(context, to, room, image, image_size);
	(void)ZSTD_freeCCtx(context);
	return ZSTD_isError(r) ? 0 : r;
}

static int encode_index(const void *image, size_t image_size, bool fast, uint8_t **ret_data, size_t *ret_size)
{
	if (image_size > FORMAT_IMAGE_MAX)
		return -EFBIG;
	size_t bound = ZSTD_compressBound(image_size);
	_cleanup_free_ uint8_t *data = malloc(FORMAT_SKIPPABLE_HEADER + bound);
	if (!data)
		return -ENOMEM;
	size_t size = compress_index(image, image_size, fast, data + FORMAT_SKIPPABLE_HEADER, bound);
	if (size == 0)
		return -ENOMEM;
	if (size > UINT32_MAX)
		return -EFBIG;
	put_skippable(data, FORMAT_INDEX_MAGIC, (uint32_t)size);

	uint8_t *shrunk = realloc(data, FORMAT_SKIPPABLE_HEADER + size);
	if (shrunk)
		data = shrunk;
	*ret_data = TAKE_PTR(data);
	*ret_size = FORMAT_SKIPPABLE_HEADER + size;
	return 0;
}

int blob_index_encode(const void *image, size_t image_size, uint8_t **ret_data, size_t *ret_size)
{
	return encode_index(image, image_size, false, ret_data, ret_size);
}

int blob_index_encode_fast(const void *image, size_t image_size, uint8_t **ret_data, size_t *ret_size)
{
	return encode_index(image, image_size, true, ret_data, ret_size);
}

int blob_index_decode(const void *data, size_t size, uint8_t **ret_image, size_t *ret_image_size, Error *error)
{
	const uint8_t *bytes = data, *payload = bytes + FORMAT_SKIPPABLE_HEADER;
	if (size < FORMAT_SKIPPABLE_HEADER + 4 || load_le32(bytes) != FORMAT_INDEX_MAGIC ||
	    load_le32(bytes + 4) != size - FORMAT_SKIPPABLE_HEADER || load_le32(payload) != ZSTD_MAGICNUMBER)
		return error_set(error, -EBADMSG, "these %zu bytes are not an imgfs index; fetch or export it again",
				 size);
	size -= FORMAT_SKIPPABLE_HEADER;

	unsigned long long content = ZSTD_getFrameContentSize(payload, size);
	if (content == ZSTD_CONTENTSIZE_ERROR || content == ZSTD_CONTENTSIZE_UNKNOWN ||
	    ZSTD_findFrameCompressedSize(payload, size) != size)
		return error_set(
			error, -EBADMSG,
			"the index is not exactly one zstd frame that states its size; fetch or export it again");
	if (content > FORMAT_IMAGE_MAX)
		return error_set(error, -EFBIG,
				 "the index would take %llu bytes in memory, more than the %" PRIu64 " a layer may; "
				 "split the layer",
				 content, FORMAT_IMAGE_MAX);

	_cleanup_free_ uint8_t *image = malloc(content ? content : 1);
	if (!image)
		return -ENOMEM;
	if (ZSTD_decompress(image, content, payload, size) != content)
		return error_set(error, -EBADMSG, "the index cannot be decompressed; fetch or export it again");
	*ret_image = TAKE_PTR(image);
	*ret_image_size = content;
	return 0;
}
