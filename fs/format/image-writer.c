#include <errno.h>
#include <string.h>
#include <xxhash.h>

#include "fs/base/bytes.h"
#include "fs/format/image-layout.h"
#include "fs/format/image.h"

#define SECTIONS_MAX FORMAT_SECTION_LAYERS

typedef struct WriterSection {
	uint32_t type;
	uint32_t flags;
	Buffer bytes;
} WriterSection;

struct ImageWriter {
	ImageHeader header;
	size_t count;
	WriterSection sections[SECTIONS_MAX];
};

int image_writer_new(const ImageHeader *header, ImageWriter **ret_writer)
{
	ImageWriter *writer = calloc(1, sizeof(*writer));
	if (!writer)
		return -ENOMEM;
	writer->header = *header;
	*ret_writer = writer;
	return 0;
}

ImageWriter *image_writer_free(ImageWriter *writer)
{
	if (writer) {
		for (size_t i = 0; i < writer->count; i++)
			buffer_done(&writer->sections[i].bytes);
		free(writer);
	}
	return NULL;
}

int image_writer_take(ImageWriter *writer, FormatSection type, uint32_t flags, Buffer *bytes)
{
	uint32_t previous = writer->count ? writer->sections[writer->count - 1].type : 0;
	if (type <= previous || type > FORMAT_SECTION_LAYERS)
		return -EINVAL;
	writer->sections[writer->count++] = (WriterSection){ .type = type, .flags = flags, .bytes = *bytes };
	*bytes = (Buffer){ 0 };
	return 0;
}

int image_writer_add(ImageWriter *writer, FormatSection type, uint32_t flags, const void *data, size_t size)
{
	_cleanup_(buffer_done) Buffer copy = { 0 };
	int r = buffer_append(&copy, data, size);
	return r < 0 ? r : image_writer_take(writer, type, flags, &copy);
}

static void put_header(const ImageHeader *header, uint32_t count, uint64_t size, uint8_t *to)
{
	memcpy(to, IMAGE_MAGIC, 8);
	store_le32(to + IMAGE_AT_VERSION, FORMAT_VERSION);
	store_le32(to + IMAGE_AT_KIND, header->kind);
	store_le64(to + IMAGE_AT_SIZE, size);
	store_le32(to + IMAGE_AT_SECTION_COUNT, count);
	store_le32(to + IMAGE_AT_CODEC, header->codec);
	store_le64(to + IMAGE_AT_TAR_SIZE, header->tar_size);
	store_le64(to + IMAGE_AT_CHUNKS_SIZE, header->chunks_size);
	memcpy(to + IMAGE_AT_ID, header->id.bytes, DIGEST_SIZE);
}

static void put_entry(uint8_t *to, uint32_t type, uint32_t flags, uint64_t offset, uint64_t size)
{
	store_le32(to + IMAGE_SECTION_AT_TYPE, type);
	store_le32(to + IMAGE_SECTION_AT_FLAGS, flags);
	store_le64(to + IMAGE_SECTION_AT_OFFSET, offset);
	store_le64(to + IMAGE_SECTION_AT_SIZE, size);
}

/* The sums of the pages of data[0, offset), and the sum of the sums, to data[offset...]. */
static void put_sums(uint8_t *data, uint64_t offset)
{
	uint8_t *to = data + offset;
	for (uint64_t start = 0; start < offset; start += FORMAT_PAGE_SIZE) {
		uint64_t length = offset - start < FORMAT_PAGE_SIZE ? offset - start : FORMAT_PAGE_SIZE;
		store_le64(to, XXH64(data + start, length, 0));
		to += IMAGE_SUM_SIZE;
	}
	store_le64(to, XXH64(data + offset, (size_t)(to - data) - offset, 0));
}

int image_writer_finish(ImageWriter *writer, uint8_t **ret_data, size_t *ret_size)
{
	uint32_t count = (uint32_t)writer->count + 1;
	uint64_t first = IMAGE_HEADER_SIZE + (uint64_t)count * IMAGE_SECTION_ENTRY_SIZE;
	uint64_t sums = first;
	for (size_t i = 0; i < writer->count; i++)
		sums = image_align(sums + writer->sections[i].bytes.size);
	uint64_t sums_size = ((sums + FORMAT_PAGE_SIZE - 1) / FORMAT_PAGE_SIZE + 1) * IMAGE_SUM_SIZE;
	uint64_t size = sums + sums_size;
	if (size > FORMAT_IMAGE_MAX)
		return -EFBIG;
	uint8_t *data = calloc(1, size);
	if (!data)
		return -ENOMEM;

	put_header(&writer->header, count, size, data);
	uint64_t offset = first;
	uint8_t *entry = data + IMAGE_HEADER_SIZE;
	for (size_t i = 0; i < writer->count; i++, entry += IMAGE_SECTION_ENTRY_SIZE) {
		WriterSection *section = &writer->sections[i];
		put_entry(entry, section->type, section->flags, offset, section->bytes.size);
		if (section->bytes.size > 0)
			memcpy(data + offset, section->bytes.data, section->bytes.size);
		offset = image_align(offset + section->bytes.size);
		buffer_done(&section->bytes); /* so that two of all of it are never in memory */
	}
	put_entry(entry, FORMAT_SECTION_PAGE_SUMS, FORMAT_SECTION_MANDATORY, sums, sums_size);
	put_sums(data, sums);
	*ret_data = data;
	*ret_size = size;
	return 0;
}
