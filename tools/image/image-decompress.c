#include "tools/image/image-decompress.h"

#include <stdbool.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#define INPUT_SIZE (256u << 10)

typedef enum Form { FORM_UNKNOWN, FORM_PLAIN, FORM_GZIP, FORM_ZSTD } Form;

struct ImageDecompressor {
	LayerSource input;
	Form form;
	z_stream gzip;
	ZSTD_DStream *zstd;
	bool between; /* members or frames: the input may end here */
	bool ended;   /* the input did */
	size_t used, filled;
	uint8_t buffer[INPUT_SIZE]; /* [used, filled) was read and not yet consumed */
};

int image_decompressor_new(const LayerSource *input, ImageDecompressor **ret_decompressor)
{
	ImageDecompressor *decompressor = calloc(1, sizeof(*decompressor));
	if (!decompressor)
		return -ENOMEM;
	decompressor->input = *input;
	*ret_decompressor = decompressor;
	return 0;
}

ImageDecompressor *image_decompressor_free(ImageDecompressor *decompressor)
{
	if (decompressor) {
		if (decompressor->form == FORM_GZIP)
			(void)inflateEnd(&decompressor->gzip);
		(void)ZSTD_freeDStream(decompressor->zstd);
		free(decompressor);
	}
	return NULL;
}

/* Reads more input behind what is buffered. */
static int fill(ImageDecompressor *decompressor, Error *error)
{
	if (decompressor->used == decompressor->filled)
		decompressor->used = decompressor->filled = 0;
	if (decompressor->ended || decompressor->filled == INPUT_SIZE)
		return 0;
	ssize_t count = decompressor->input.read(decompressor->input.arg, decompressor->buffer + decompressor->filled,
						 INPUT_SIZE - decompressor->filled, error);
	if (count < 0)
		return (int)count;
	decompressor->filled += (size_t)count;
	decompressor->ended = count == 0;
	return 0;
}

static bool starts_with(const ImageDecompressor *decompressor, const char *magic, size_t size)
{
	return decompressor->filled >= size && memcmp(decompressor->buffer, magic, size) == 0;
}

/* A skippable frame, too, may open a zstd stream; its first byte tells 16 kinds. */
static bool is_zstd(const ImageDecompressor *decompressor)
{
	return starts_with(decompressor, "\x28\xb5\x2f\xfd", 4) ||
	       (decompressor->filled >= 4 && (decompressor->buffer[0] & 0xf0) == 0x50 &&
		memcmp(decompressor->buffer + 1, "\x2a\x4d\x18", 3) == 0);
}

static int detect(ImageDecompressor *decompressor, Error *error)
{
	while (decompressor->filled < 4 && !decompressor->ended) {
		int r = fill(decompressor, error);
		if (r < 0)
			return r;
	}
	if (starts_with(decompressor, "\x1f\x8b\x08", 3)) {
		/* 15 bits of window, plus 16: gzip framing. */
		if (inflateInit2(&decompressor->gzip, 15 + 16) != Z_OK)
			return error_set(error, -ENOMEM, "out of memory for gzip");
		decompressor->form = FORM_GZIP;
	} else if (is_zstd(decompressor)) {
		decompressor->zstd = ZSTD_createDStream();
		if (!decompressor->zstd)
			return error_set(error, -ENOMEM, "out of memory for zstd");
		decompressor->form = FORM_ZSTD;
	} else {
		decompressor->form = FORM_PLAIN;
	}
	return 0;
}

static ssize_t read_plain(ImageDecompressor *decompressor, void *buffer, size_t size, Error *error)
{
	size_t left = decompressor->filled - decompressor->used;
	if (left == 0)
		return decompressor->ended ? 0 : decompressor->input.read(decompressor->input.arg, buffer, size, error);
	if (size > left)
		size = left;
	memcpy(buffer, decompressor->buffer + decompressor->used, size);
	decompressor->used += size;
	return (ssize_t)size;
}

/* One call of zlib over what is buffered. Returns the count of bytes made, perhaps 0, or -EBADMSG. */
static ssize_t step_gzip(ImageDecompressor *decompressor, void *buffer, size_t size, Error *error)
{
	z_stream *gzip = &decompressor->gzip;
	if (decompressor->between && inflateReset(gzip) != Z_OK)
		return error_set(error, -EBADMSG, "gzip: cannot start the next member");
	size_t chunk = size < UINT32_MAX ? size : UINT32_MAX;
	gzip->next_in = decompressor->buffer + decompressor->used;
	gzip->avail_in = (uInt)(decompressor->filled - decompressor->used);
	gzip->next_out = buffer;
	gzip->avail_out = (uInt)chunk;
	int r = inflate(gzip, Z_NO_FLUSH);
	decompressor->used = decompressor->filled - gzip->avail_in;
	decompressor->between = r == Z_STREAM_END;
	if (r == Z_MEM_ERROR)
		return error_set(error, -ENOMEM, "out of memory for gzip");
	if (r != Z_OK && r != Z_STREAM_END && r != Z_BUF_ERROR)
		return error_set(error, -EBADMSG, "gzip data is damaged: %s", gzip->msg ?: "bad stream");
	return (ssize_t)(chunk - gzip->avail_out);
}

static ssize_t step_zstd(ImageDecompressor *decompressor, void *buffer, size_t size, Error *error)
{
	ZSTD_inBuffer in = { .src = decompressor->buffer, .size = decompressor->filled, .pos = decompressor->used };
	ZSTD_outBuffer out = { .dst = buffer, .size = size };
	size_t r = ZSTD_decompressStream(decompressor->zstd, &out, &in);
	decompressor->used = in.pos;
	decompressor->between = r == 0;
	if (ZSTD_isError(r))
		return error_set(error, -EBADMSG, "zstd data is damaged: %s", ZSTD_getErrorName(r));
	return (ssize_t)out.pos;
}

static ssize_t read_compressed(ImageDecompressor *decompressor, void *buffer, size_t size, Error *error)
{
	for (;;) {
		if (decompressor->used == decompressor->filled) {
			int r = fill(decompressor, error);
			if (r < 0)
				return r;
		}
		bool starved = decompressor->used == decompressor->filled;
		if (starved && decompressor->between)
			return 0;
		/* A starved decoder may still hold output; when it has none, the stream is cut short. */
		ssize_t count = decompressor->form == FORM_GZIP ? step_gzip(decompressor, buffer, size, error)
								: step_zstd(decompressor, buffer, size, error);
		if (count != 0)
			return count;
		if (starved && !decompressor->between)
			return error_set(error, -EBADMSG, "%s data ends in the middle; fetch the image again",
					 decompressor->form == FORM_GZIP ? "gzip" : "zstd");
	}
}

static ssize_t decompressor_read(void *arg, void *buffer, size_t size, Error *error)
{
	ImageDecompressor *decompressor = arg;
	if (decompressor->form == FORM_UNKNOWN) {
		int r = detect(decompressor, error);
		if (r < 0)
			return r;
	}
	return decompressor->form == FORM_PLAIN ? read_plain(decompressor, buffer, size, error)
						: read_compressed(decompressor, buffer, size, error);
}

LayerSource image_decompressor_source(ImageDecompressor *decompressor)
{
	return (LayerSource){ .read = decompressor_read, .arg = decompressor };
}
