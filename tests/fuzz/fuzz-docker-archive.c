/*
 * A docker archive from anywhere. The first byte chooses how it is read (bit 0: as a file, else as a stream) and what follows: bit 1 set,
 * the archive as it is; else members, which become a good tar: a type, the lengths of name and of what follows (two bytes,
 * little-endian), then both. What follows is the data of a file and the target of a link.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "fs/base/bytes.h"
#include "fs/base/fd.h"
#include "fs/format/buffer.h"
#include "tools/image/image-docker-transfer.h"

#define BLOCK 512u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct Memory {
	const uint8_t *data;
	size_t size;
} Memory;

static ssize_t memory_read(void *arg, void *buffer, size_t size, Error *error _unused_)
{
	Memory *memory = arg;
	if (size > memory->size)
		size = memory->size;
	if (size == 0)
		return 0;
	memcpy(buffer, memory->data, size);
	memory->data += size;
	memory->size -= size;
	return (ssize_t)size;
}

static int memory_skip(void *arg, uint64_t size, Error *error _unused_)
{
	Memory *memory = arg;
	if (size > memory->size)
		return -EBADMSG;
	memory->data += size;
	memory->size -= size;
	return 0;
}

static int on_begin(void *arg _unused_, const ImageContent *content, Error *error _unused_)
{
	/* What is announced must be whole. */
	if (!content->config || content->config[content->config_size] != '\0' ||
	    (content->layer_count > 0 && !content->diff_ids))
		abort();
	return 0;
}

static bool on_has_layer(void *arg _unused_, const Digest *diff_id)
{
	return diff_id->bytes[0] == 0;
}

static int on_layer(void *arg, const Digest *diff_id, const LayerSource *tar, Digest *ret_diff_id, Error *error)
{
	uint8_t buffer[4096];
	size_t total = 0;
	ssize_t count;
	_cleanup_(digest_state_free_p) DigestState *state = NULL;
	if (digest_state_new(&state) < 0)
		return -ENOMEM;
	while ((count = tar->read(tar->arg, buffer, sizeof(buffer), error)) > 0) {
		if ((size_t)count > sizeof(buffer))
			abort();
		total += (size_t)count;
		/* A bomb costs the writer disk, not memory; here it only costs time. */
		if (total > 1u << 20)
			return -EFBIG;
		if (digest_state_add(state, buffer, (size_t)count) < 0)
			return -ENOMEM;
	}
	if (count < 0)
		return (int)count;
	++*(size_t *)arg;
	int r = digest_state_end(state, ret_diff_id);
	return r == 0 && diff_id && !digest_equal(diff_id, ret_diff_id) ? -EKEYREJECTED : r;
}

static void octal(uint8_t *field, size_t size, unsigned value)
{
	char text[16];
	(void)snprintf(text, sizeof(text), "%0*o", (int)size - 1, value);
	memcpy(field, text, size);
}

static void add_member(Buffer *tar, char type, const uint8_t *name, size_t name_size, const uint8_t *data, size_t size)
{
	bool is_link = type == '1' || type == '2';
	size_t data_size = is_link ? 0 : size, padded = (data_size + BLOCK - 1) / BLOCK * BLOCK;
	uint8_t *header = buffer_extend(tar, BLOCK + padded);
	if (!header)
		abort();
	memset(header, 0, BLOCK + padded);
	memcpy(header, name, name_size < 100 ? name_size : 100);
	octal(header + 100, 8, 0644);
	octal(header + 108, 8, 0);
	octal(header + 116, 8, 0);
	octal(header + 124, 12, (unsigned)data_size);
	octal(header + 136, 12, 0);
	memset(header + 148, ' ', 8);
	header[156] = (uint8_t)type;
	if (is_link)
		memcpy(header + 157, data, size < 100 ? size : 100);
	else if (size > 0)
		memcpy(header + BLOCK, data, size);
	memcpy(header + 257, "ustar\00000", 8);
	unsigned sum = 0;
	for (size_t i = 0; i < BLOCK; i++)
		sum += header[i];
	octal(header + 148, 7, sum);
}

static void build(Buffer *tar, const uint8_t *data, size_t size)
{
	while (size >= 5) {
		size_t name_size = load_le16(data + 1), data_size = load_le16(data + 3);
		const uint8_t *rest = data + 5;
		size -= 5;
		if (name_size > size)
			name_size = size;
		if (data_size > size - name_size)
			data_size = size - name_size;
		add_member(tar, (char)data[0], rest, name_size, rest + name_size, data_size);
		data = rest + name_size + data_size;
		size -= name_size + data_size;
	}
}

static void transfer(const Buffer *archive, bool as_file)
{
	size_t layers = 0;
	ImageSink sink = { .begin = on_begin, .has_layer = on_has_layer, .layer = on_layer, .arg = &layers };
	ImageProgress progress = { .sink = &sink };
	Memory memory = { .data = archive->data, .size = archive->size };
	ImageArchiveInput input = { .source = { .read = memory_read, .arg = &memory },
				    .skip = as_file ? memory_skip : NULL };
	_cleanup_close_ int fd = as_file ? memfd_create("archive", MFD_CLOEXEC) : -1;
	ImageDockerTransfer work = { .archive = "docker archive", .fd = fd, .progress = &progress };
	ImageContent content = { 0 };
	Error error = { 0 };
	if (as_file && (fd < 0 || fd_write_all(fd, archive->data, archive->size) < 0))
		abort();
	int r = image_docker_transfer(&work, &input, &sink, &content, &error);
	if (r > 0 || (r < 0 && content.config))
		abort();
	image_content_done(&content);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	Buffer archive = { 0 };
	if (size < 1)
		return 0;
	if (data[0] & 2) {
		if (buffer_append(&archive, data + 1, size - 1) < 0)
			abort();
	} else {
		build(&archive, data + 1, size - 1);
	}
	transfer(&archive, data[0] & 1);
	buffer_done(&archive);
	return 0;
}
