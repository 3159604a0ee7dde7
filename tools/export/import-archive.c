/* The form of `docker save`: a tar of config, layers and manifest.json. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "fs/base/fd.h"
#include "tools/export/import-file.h"
#include "tools/export/import-layer.h"

#define BLOCK     512u
#define NAME_SIZE 80u /* the longest: a digest and ".config" */

/* Fields of a header (POSIX.1-2017 pax, "ustar Interchange Format"). */
enum {
	AT_MODE = 100,
	AT_UID = 108,
	AT_GID = 116,
	AT_SIZE = 124,
	AT_MTIME = 136,
	AT_SUM = 148,
	AT_TYPE = 156,
	AT_MAGIC = 257,
	SIZE_LENGTH = 12,
};

static void put_octal(uint8_t *header, size_t at, unsigned digits, uint64_t value)
{
	char text[32];
	(void)snprintf(text, sizeof(text), "%0*" PRIo64, (int)digits, value);
	memcpy(header + at, text, digits + 1);
}

/* Sizes of 8 GiB and more are big-endian numbers behind a byte 0x80, as GNU tar has them and every engine reads. */
static void put_size(uint8_t *header, uint64_t size)
{
	if (size < UINT64_C(1) << 33) {
		put_octal(header, AT_SIZE, SIZE_LENGTH - 1, size);
		return;
	}
	memset(header + AT_SIZE, 0, SIZE_LENGTH);
	header[AT_SIZE] = 0x80;
	for (size_t i = 0; i < sizeof(size); i++)
		header[AT_SIZE + SIZE_LENGTH - 1 - i] = (uint8_t)(size >> (8 * i));
}

static void make_header(const char *name, uint64_t size, uint8_t ret_header[static BLOCK])
{
	uint32_t sum = 0;
	memset(ret_header, 0, BLOCK);
	memcpy(ret_header, name, strlen(name));
	put_octal(ret_header, AT_MODE, 7, 0644);
	put_octal(ret_header, AT_UID, 7, 0);
	put_octal(ret_header, AT_GID, 7, 0);
	put_size(ret_header, size);
	put_octal(ret_header, AT_MTIME, 11, 0);
	ret_header[AT_TYPE] = '0';
	memcpy(ret_header + AT_MAGIC, "ustar\00000", 8);
	memset(ret_header + AT_SUM, ' ', 8);
	for (size_t i = 0; i < BLOCK; i++)
		sum += ret_header[i];
	put_octal(ret_header, AT_SUM, 6, sum);
}

static int write_header(int fd, const char *name, uint64_t size)
{
	uint8_t header[BLOCK];
	make_header(name, size, header);
	return fd_write_all(fd, header, sizeof(header));
}

static int write_padding(int fd, uint64_t size)
{
	static const uint8_t zeros[BLOCK];
	return size % BLOCK ? fd_write_all(fd, zeros, BLOCK - size % BLOCK) : 0;
}

static int write_small(int fd, const char *name, const char *data, size_t size, Error *error)
{
	int r = write_header(fd, name, size);
	if (r == 0)
		r = fd_write_all(fd, data, size);
	if (r == 0)
		r = write_padding(fd, size);
	return r < 0 ? import_write_error(name, r, error) : 0;
}

static void config_name(const Manifest *manifest, char ret_name[static NAME_SIZE])
{
	char hex[DIGEST_HEX_SIZE];
	(void)snprintf(ret_name, NAME_SIZE, "%s.json", digest_hex(&manifest->config, hex));
}

static void layer_name(const ManifestLayer *layer, char ret_name[static NAME_SIZE])
{
	char hex[DIGEST_HEX_SIZE];
	(void)snprintf(ret_name, NAME_SIZE, "%s.tar", digest_hex(&layer->diff_id, hex));
}

/* manifest.json, malloc'ed; NULL when memory is out. */
static char *make_list(const Manifest *manifest, const char *tag)
{
	char name[NAME_SIZE];
	json_auto_t *layers = json_array();
	json_auto_t *tags = json_array();
	for (size_t i = 0; i < manifest->layer_count; i++) {
		layer_name(&manifest->layers[i], name);
		if (json_array_append_new(layers, json_string(name)) < 0)
			return NULL;
	}
	if (tag && json_array_append_new(tags, json_string(tag)) < 0)
		return NULL;
	config_name(manifest, name);
	json_auto_t *list = json_pack("[{s:s, s:O, s:O}]", "Config", name, "RepoTags", tags, "Layers", layers);
	return list ? json_dumps(list, JSON_COMPACT) : NULL;
}

static int write_layer(Store *store, const ManifestLayer *layer, const ImportOptions *options, int fd, Error *error)
{
	char name[NAME_SIZE];
	layer_name(layer, name);
	int r = write_header(fd, name, layer->tar_size);
	if (r < 0)
		return import_write_error(name, r, error);
	r = import_layer_tar(store, layer, options, fd, error);
	if (r < 0)
		return r;
	r = write_padding(fd, layer->tar_size);
	return r < 0 ? import_write_error(name, r, error) : 0;
}

/* manifest.json and the config go first: who reads a pipe knows then what will come. */
int import_docker_archive(Store *store, const StoreImage *image, const ImportOptions *options, int fd, Error *error)
{
	static const uint8_t end[2 * BLOCK];
	const Manifest *manifest = &image->manifest;
	char name[NAME_SIZE];
	_cleanup_free_ char *config = NULL;
	_cleanup_free_ char *list = make_list(manifest, options->name);
	if (!list)
		return error_set(error, -ENOMEM, "out of memory for manifest.json");
	int r = store_image_config(store, manifest, &config, error);
	if (r == 0)
		r = write_small(fd, "manifest.json", list, strlen(list), error);
	config_name(manifest, name);
	if (r == 0)
		r = write_small(fd, name, config, manifest->config_size, error);
	for (size_t i = 0; i < manifest->layer_count && r == 0; i++) {
		if (import_is_first(manifest, i))
			r = write_layer(store, &manifest->layers[i], options, fd, error);
	}
	if (r < 0)
		return r;
	r = fd_write_all(fd, end, sizeof(end));
	return r < 0 ? import_write_error("the end of the archive", r, error) : 0;
}
