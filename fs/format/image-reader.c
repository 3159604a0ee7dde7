#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <xxhash.h>

#include "fs/base/bytes.h"
#include "fs/format/image-layout.h"
#include "fs/format/image.h"

#define WAY_OUT "fetch or export it again"

static bool is_zero(const uint8_t *data, uint64_t size)
{
	for (uint64_t i = 0; i < size; i++)
		if (data[i])
			return false;
	return true;
}

/* The fields that depend on the kind. */
static int check_kind(const ImageHeader *header, Error *error)
{
	switch (header->kind) {
	case FORMAT_KIND_INDEX:
		if (header->codec != FORMAT_CODEC_LZ4)
			return error_set(error, -EPROTONOSUPPORT,
					 "the index uses chunk codec %u, which this imgfs does not know; upgrade imgfs",
					 header->codec);
		if (header->tar_size > INT64_MAX || header->chunks_size > INT64_MAX)
			return error_set(error, -EBADMSG, "the index claims an impossible layer size; " WAY_OUT);
		return 0;
	case FORMAT_KIND_VIEW:
		if (header->codec != FORMAT_CODEC_NONE || header->tar_size || header->chunks_size)
			return error_set(error, -EBADMSG, "the view claims to have chunks of its own; build it again");
		return 0;
	default:
		return error_set(error, -EPROTONOSUPPORT,
				 "the index image is of kind %u, which this imgfs does not know; upgrade imgfs",
				 header->kind);
	}
}

static int read_header(const uint8_t *data, size_t size, ImageHeader *ret_header, uint32_t *ret_count, Error *error)
{
	if (size < IMAGE_HEADER_SIZE || memcmp(data, IMAGE_MAGIC, 8) != 0)
		return error_set(error, -EBADMSG, "these %zu bytes are not an imgfs index; " WAY_OUT, size);
	uint32_t version = load_le32(data + IMAGE_AT_VERSION);
	if (version != FORMAT_VERSION)
		return error_set(
			error, -EPROTONOSUPPORT,
			"the index is of format version %u, and this imgfs reads version %u only; upgrade imgfs",
			version, FORMAT_VERSION);
	uint64_t length = load_le64(data + IMAGE_AT_SIZE);
	if (length != size)
		return error_set(error, -EBADMSG, "the index is %zu bytes long but says %" PRIu64 "; " WAY_OUT, size,
				 length);
	uint32_t count = load_le32(data + IMAGE_AT_SECTION_COUNT);
	if (!range_within(IMAGE_HEADER_SIZE, (uint64_t)count * IMAGE_SECTION_ENTRY_SIZE, size))
		return error_set(error, -EBADMSG, "the index claims %u sections, more than fit; " WAY_OUT, count);
	if (!is_zero(data + IMAGE_AT_RESERVED, IMAGE_HEADER_SIZE - IMAGE_AT_RESERVED))
		return error_set(error, -EBADMSG, "reserved bytes of the index header are not 0; " WAY_OUT);

	ImageHeader header = {
		.kind = load_le32(data + IMAGE_AT_KIND),
		.codec = load_le32(data + IMAGE_AT_CODEC),
		.tar_size = load_le64(data + IMAGE_AT_TAR_SIZE),
		.chunks_size = load_le64(data + IMAGE_AT_CHUNKS_SIZE),
	};
	memcpy(header.id.bytes, data + IMAGE_AT_ID, DIGEST_SIZE);
	int r = check_kind(&header, error);
	if (r < 0)
		return r;
	*ret_header = header;
	*ret_count = count;
	return 0;
}

/* Types this version gives a meaning. The start-up list is reserved: kept where it stands, never looked into. */
static bool is_known(uint32_t type)
{
	return type >= FORMAT_SECTION_CHUNK_LENGTHS && type <= FORMAT_SECTION_LAYERS && type != FORMAT_SECTION_STARTUP;
}

/* `position` is where the previous section ends, and moves to where this one does. */
static int read_section(const uint8_t *data, size_t size, const uint8_t *entry, uint64_t *position, Image *image,
			Error *error)
{
	uint32_t type = load_le32(entry + IMAGE_SECTION_AT_TYPE), flags = load_le32(entry + IMAGE_SECTION_AT_FLAGS);
	uint64_t offset = load_le64(entry + IMAGE_SECTION_AT_OFFSET), length = load_le64(entry + IMAGE_SECTION_AT_SIZE);

	if (flags & ~FORMAT_SECTION_MANDATORY)
		return error_set(error, -EBADMSG, "section %u of the index has unknown flags 0x%x; " WAY_OUT, type,
				 flags);
	if (offset % IMAGE_ALIGNMENT || offset < *position || !range_within(offset, length, size))
		return error_set(error, -EBADMSG, "section %u of the index is out of place; " WAY_OUT, type);
	if (!is_zero(data + *position, offset - *position))
		return error_set(error, -EBADMSG, "the bytes before section %u of the index are not 0; " WAY_OUT, type);
	*position = offset + length;
	if (type == FORMAT_SECTION_PAGE_SUMS)
		return 0;
	if (!is_known(type) && (flags & FORMAT_SECTION_MANDATORY))
		return error_set(error, -EPROTONOSUPPORT,
				 "the index needs section %u, which this imgfs does not know; upgrade imgfs", type);
	if (type < sizeof(image->sections) / sizeof(image->sections[0]))
		image->sections[type] = (ImageSection){ .data = data + offset, .size = length, .present = true };
	return 0;
}

/* Checks every page that begins before `end`, and the sum over all sums, which stand at `offset`. */
static int check_sums(const uint8_t *data, size_t size, uint64_t offset, uint64_t end, Error *error)
{
	uint64_t pages = (offset + FORMAT_PAGE_SIZE - 1) / FORMAT_PAGE_SIZE;
	if (size - offset != (pages + 1) * IMAGE_SUM_SIZE)
		return error_set(error, -EBADMSG, "the index has the wrong number of page sums; " WAY_OUT);
	const uint8_t *sums = data + offset;
	if (XXH64(sums, pages * IMAGE_SUM_SIZE, 0) != load_le64(sums + pages * IMAGE_SUM_SIZE))
		return error_set(error, -EBADMSG, "the page sums of the index are rotten; " WAY_OUT);
	for (uint64_t page = 0; page * FORMAT_PAGE_SIZE < end; page++) {
		uint64_t start = page * FORMAT_PAGE_SIZE;
		uint64_t length = offset - start < FORMAT_PAGE_SIZE ? offset - start : FORMAT_PAGE_SIZE;
		if (XXH64(data + start, length, 0) != load_le64(sums + page * IMAGE_SUM_SIZE))
			return error_set(error, -EBADMSG, "page %" PRIu64 " of the index is rotten; " WAY_OUT, page);
	}
	return 0;
}

/* All but the page sums, which begin at `ret_sums`. */
static int read_layout(const void *data, size_t size, Image *ret_image, uint64_t *ret_sums, Error *error)
{
	const uint8_t *bytes = data;
	Image image = { 0 };
	uint32_t count = 0;
	int r = read_header(bytes, size, &image.header, &count, error);
	if (r < 0)
		return r;

	uint64_t position = IMAGE_HEADER_SIZE + (uint64_t)count * IMAGE_SECTION_ENTRY_SIZE;
	uint32_t previous = 0;
	const uint8_t *entry = bytes + IMAGE_HEADER_SIZE;
	for (uint32_t i = 0; i < count; i++, entry += IMAGE_SECTION_ENTRY_SIZE) {
		uint32_t type = load_le32(entry + IMAGE_SECTION_AT_TYPE);
		if (type <= previous)
			return error_set(error, -EBADMSG, "section %u of the index is out of order; " WAY_OUT, type);
		previous = type;
		r = read_section(bytes, size, entry, &position, &image, error);
		if (r < 0)
			return r;
	}
	if (previous != FORMAT_SECTION_PAGE_SUMS || position != size)
		return error_set(error, -EBADMSG, "the index does not end in its page sums; " WAY_OUT);
	*ret_sums = load_le64(entry - IMAGE_SECTION_ENTRY_SIZE + IMAGE_SECTION_AT_OFFSET);
	*ret_image = image;
	return 0;
}

int image_open(const void *data, size_t size, Image *ret_image, Error *error)
{
	Image image;
	uint64_t sums;
	int r = read_layout(data, size, &image, &sums, error);
	if (r == 0)
		r = check_sums(data, size, sums, sums, error);
	if (r < 0)
		return r;
	*ret_image = image;
	return 0;
}

int image_peek(const void *data, size_t size, Image *ret_image, Error *error)
{
	uint64_t sums;
	return read_layout(data, size, ret_image, &sums, error);
}

/* Where the chunk table ends, to the page, and that nothing else lies before it. */
static int find_part(const uint8_t *data, size_t size, Image *ret_image, uint64_t *ret_end, uint64_t *ret_sums,
		     Error *error)
{
	uint32_t count = size < IMAGE_HEADER_SIZE ? 0 : load_le32(data + IMAGE_AT_SECTION_COUNT);
	if (IMAGE_HEADER_SIZE + (uint64_t)count * IMAGE_SECTION_ENTRY_SIZE > IMAGE_HEAD_MAX)
		return error_set(error, -EBADMSG, "the index has %u sections, more than there are; " WAY_OUT, count);
	int r = read_layout(data, size, ret_image, ret_sums, error);
	if (r < 0)
		return r;
	uint64_t end = 0;
	for (uint32_t type = 1; type <= FORMAT_SECTION_LAYERS; type++) {
		const ImageSection *section = &ret_image->sections[type];
		if (type <= FORMAT_SECTION_CHUNK_DIGESTS && section->present)
			end = (uint64_t)(section->data + section->size - data);
	}
	/* The last page whole, since its sum is that of all of it. */
	end = (end + FORMAT_PAGE_SIZE - 1) / FORMAT_PAGE_SIZE * FORMAT_PAGE_SIZE;
	*ret_end = end < *ret_sums ? end : *ret_sums;
	return 0;
}

int image_part(const void *data, size_t size, size_t *ret_end, size_t *ret_sums, Error *error)
{
	Image image;
	uint64_t end, sums;
	int r = find_part(data, size, &image, &end, &sums, error);
	if (r < 0)
		return r;
	*ret_end = (size_t)end;
	*ret_sums = (size_t)sums;
	return 0;
}

int image_open_part(const void *data, size_t size, Image *ret_image, Error *error)
{
	Image image;
	uint64_t end, sums;
	int r = find_part(data, size, &image, &end, &sums, error);
	if (r == 0)
		r = check_sums(data, size, sums, end, error);
	if (r < 0)
		return r;
	*ret_image = image;
	return 0;
}
