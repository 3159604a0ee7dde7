/* The OCI image layout. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/base/fd.h"
#include "tools/export/import-file.h"
#include "tools/export/import-layer.h"

#define LAYOUT_TEXT     "{\"imageLayoutVersion\":\"1.0.0\"}"
#define INDEX_MAX       (16u << 20)
#define INDEX_TYPE      "application/vnd.oci.image.index.v1+json"
#define REF_NAME        "org.opencontainers.image.ref.name"
#define OBJECT_PATH_MAX 96

typedef struct Layout {
	const char *path;
	int fd;
	Store *store;
	const ImportOptions *options;
	bool directory_made; /* by this import */
	bool made;           /* likewise, the layout in it */
} Layout;

static bool is_empty(int fd)
{
	int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_closedir_ DIR *directory = copy >= 0 ? fdopendir(copy) : NULL;
	size_t count = 0;
	if (!directory)
		return false;
	for (struct dirent *entry = readdir(directory); entry; entry = readdir(directory))
		count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
	return count == 0;
}

/* The file "oci-layout" comes first: a crash after it leaves a layout without images, which the next import fills. */
static int open_layout(Layout *layout, Error *error)
{
	layout->directory_made = access(layout->path, F_OK) < 0;
	int r = fd_make_directories(AT_FDCWD, layout->path, 0755);
	if (r == 0) {
		layout->fd = open(layout->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		r = layout->fd < 0 ? -errno : 0;
	}
	if (r < 0)
		return import_write_error(layout->path, r, error);
	if (faccessat(layout->fd, "oci-layout", F_OK, 0) < 0) {
		if (!is_empty(layout->fd))
			return error_set(error, -EEXIST,
					 "%s is neither empty nor an OCI image layout; name another directory",
					 layout->path);
		layout->made = true;
		r = fd_replace_file(layout->fd, "oci-layout", LAYOUT_TEXT, strlen(LAYOUT_TEXT), 0644);
	}
	if (r == 0)
		r = fd_make_directories(layout->fd, "blobs/sha256", 0755);
	return r < 0 ? import_write_error(layout->path, r, error) : 0;
}

static void object_path(const Digest *digest, char ret_path[static OBJECT_PATH_MAX])
{
	char hex[DIGEST_HEX_SIZE];
	(void)snprintf(ret_path, OBJECT_PATH_MAX, "blobs/sha256/%s", digest_hex(digest, hex));
}

/* Is the object there, with all its bytes right? Reading costs less than writing it again. */
static bool has_object(const Layout *layout, const Digest *digest, uint64_t size)
{
	char path[OBJECT_PATH_MAX];
	struct stat status;
	Digest found;
	FdMap map;
	object_path(digest, path);
	_cleanup_close_ int fd = openat(layout->fd, path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &status) < 0 || !S_ISREG(status.st_mode) || (uint64_t)status.st_size != size ||
	    fd_map(fd, &map) < 0)
		return false;
	int r = digest_of(map.data, map.size, &found);
	fd_unmap(&map);
	return r == 0 && digest_equal(&found, digest);
}

static int put_object(const Layout *layout, const Digest *digest, const char *data, size_t size, Error *error)
{
	char path[OBJECT_PATH_MAX];
	if (has_object(layout, digest, size))
		return 0;
	object_path(digest, path);
	int r = fd_replace_file(layout->fd, path, data, size, 0644);
	return r < 0 ? import_write_error(path, r, error) : 0;
}

static int put_layer(const Layout *layout, const ManifestLayer *layer, Error *error)
{
	char path[OBJECT_PATH_MAX];
	const ImportOptions *options = layout->options;
	_cleanup_(import_file_done) ImportFile file = IMPORT_FILE_NULL;
	if (has_object(layout, &layer->diff_id, layer->tar_size)) {
		if (options->progress)
			options->progress(options->progress_arg, layer->tar_size);
		return 0;
	}
	object_path(&layer->diff_id, path);
	int r = import_file_open(layout->fd, path, &file, error);
	if (r == 0)
		r = import_layer_tar(layout->store, layer, options, file.fd, error);
	return r == 0 ? import_file_publish(&file, error) : r;
}

/* index.json as it is, or an empty one. */
static int read_list(const Layout *layout, json_t **ret_list, Error *error)
{
	_cleanup_free_ char *text = NULL;
	size_t size;
	int r = fd_read_file(layout->fd, "index.json", INDEX_MAX, &text, &size);
	json_t *list = NULL;
	if (r == -ENOENT)
		list = json_pack("{s:i, s:s, s:[]}", "schemaVersion", 2, "mediaType", INDEX_TYPE, "manifests");
	else if (r < 0)
		return error_set(error, r, "%s/index.json cannot be read: %s", layout->path, error_text(NULL, r));
	else
		list = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
	if (!json_is_array(json_object_get(list, "manifests"))) {
		json_decref(list);
		return error_set(error, -EEXIST, "%s/index.json is no list of images; name another directory",
				 layout->path);
	}
	*ret_list = list;
	return 0;
}

static json_t *make_entry(const StoreImage *image, const char *name)
{
	char digest[DIGEST_TEXT_SIZE];
	json_t *entry = json_pack("{s:s, s:s, s:I}", "mediaType", MANIFEST_MEDIA_TYPE, "digest",
				  digest_text(&image->digest, digest), "size", (json_int_t)image->json_size);
	if (entry && name && json_object_set_new(entry, "annotations", json_pack("{s:s}", REF_NAME, name)) < 0) {
		json_decref(entry);
		return NULL;
	}
	return entry;
}

/* Takes out of the list whoever has the name, or is the same image without one. */
static void drop_entries(json_t *manifests, const char *name, const char *digest)
{
	for (size_t i = json_array_size(manifests); i-- > 0;) {
		const json_t *entry = json_array_get(manifests, i);
		const char *has = json_string_value(json_object_get(json_object_get(entry, "annotations"), REF_NAME));
		const char *is = json_string_value(json_object_get(entry, "digest"));
		bool same = name ? has && strcmp(has, name) == 0 : !has && is && strcmp(is, digest) == 0;
		if (same)
			(void)json_array_remove(manifests, i);
	}
}

static int put_list(const Layout *layout, const StoreImage *image, Error *error)
{
	char digest[DIGEST_TEXT_SIZE];
	json_auto_t *list = NULL;
	int r = read_list(layout, &list, error);
	if (r < 0)
		return r;
	json_t *manifests = json_object_get(list, "manifests");
	drop_entries(manifests, layout->options->name, digest_text(&image->digest, digest));
	_cleanup_free_ char *text = NULL;
	if (json_array_append_new(manifests, make_entry(image, layout->options->name)) == 0)
		text = json_dumps(list, JSON_INDENT(2));
	if (!text)
		return error_set(error, -ENOMEM, "out of memory for index.json");
	r = fd_replace_file(layout->fd, "index.json", text, strlen(text), 0644);
	return r < 0 ? import_write_error("index.json", r, error) : 0;
}

static int fill(const Layout *layout, const StoreImage *image, Error *error)
{
	const Manifest *manifest = &image->manifest;
	_cleanup_free_ char *config = NULL;
	int r = store_image_config(layout->store, manifest, &config, error);
	for (size_t i = 0; i < manifest->layer_count && r == 0; i++) {
		if (import_is_first(manifest, i))
			r = put_layer(layout, &manifest->layers[i], error);
	}
	if (r == 0)
		r = put_object(layout, &manifest->config, config, manifest->config_size, error);
	if (r == 0)
		r = put_object(layout, &image->digest, image->json, image->json_size, error);
	return r == 0 ? put_list(layout, image, error) : r;
}

/* After a failure: what was made and holds nothing goes. Layers that have arrived whole stay for the next try. */
static void drop_empty(const Layout *layout)
{
	if (layout->made) {
		(void)unlinkat(layout->fd, "blobs/sha256", AT_REMOVEDIR);
		if (unlinkat(layout->fd, "blobs", AT_REMOVEDIR) == 0 || errno == ENOENT)
			(void)unlinkat(layout->fd, "oci-layout", 0);
	}
	if (layout->directory_made)
		(void)rmdir(layout->path);
}

int import_oci_layout(Store *store, const StoreImage *image, const ImportOptions *options, const char *path,
		      Error *error)
{
	Layout layout = { .path = path, .fd = -1, .store = store, .options = options };
	int r = open_layout(&layout, error);
	if (r == 0) {
		r = fill(&layout, image, error);
		if (r < 0)
			(void)error_prefix(error, r, "%s", path);
	}
	if (r < 0)
		drop_empty(&layout);
	if (layout.fd >= 0)
		(void)close(layout.fd);
	return r;
}
