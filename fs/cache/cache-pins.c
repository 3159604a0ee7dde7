#include "fs/cache/cache-pins.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "fs/base/fd.h"
#include "fs/cache/cache-evict.h"
#include "fs/cache/cache-private.h"
#include "fs/format/manifest.h"

#define HEADER    "imgfs pin 1"
#define FILE_MAX  (1u << 20)
#define PATH_SIZE (sizeof("seals/") + DIGEST_HEX_SIZE)

static const char *const directories[CACHE_PIN_KINDS] = { [CACHE_PIN] = "pins", [CACHE_SEAL] = "seals" };

static const char *pin_path(CachePinKind kind, const Digest *manifest, char ret_path[static PATH_SIZE])
{
	char hex[DIGEST_HEX_SIZE];
	(void)snprintf(ret_path, PATH_SIZE, "%s/%s", directories[kind], digest_hex(manifest, hex));
	return ret_path;
}

static void pin_done(CachePin *pin)
{
	free(pin->reference);
	digest_list_done(&pin->keep);
	*pin = (CachePin){ 0 };
}

CachePin *cache_pins_free(CachePin *pins, size_t count)
{
	for (size_t i = 0; i < count; i++)
		pin_done(&pins[i]);
	free(pins);
	return NULL;
}

/* The image's manifest, if the cache has it. Errors: -ENOENT (not there, or rotten), -ENODATA, -EBADMSG, -ENOMEM. */
static int read_manifest(CacheStore *store, const Digest *digest, Manifest *ret_manifest)
{
	char hex[DIGEST_HEX_SIZE], path[sizeof("manifests/") + DIGEST_HEX_SIZE];
	_cleanup_free_ char *json = NULL;
	size_t size;
	Digest found;
	(void)snprintf(path, sizeof(path), "manifests/%s", digest_hex(digest, hex));
	int r = fd_read_file(store->dirfd, path, MANIFEST_SIZE_MAX, &json, &size);
	if (r == 0)
		r = digest_of(json, size, &found);
	if (r == 0 && !digest_equal(&found, digest))
		r = -ENOENT;
	return r == 0 ? manifest_parse(json, size, ret_manifest, NULL) : r;
}

/* One line of it, whatever the caller was given. */
static void print_reference(FILE *file, const char *reference)
{
	(void)fputs("reference ", file);
	for (const char *byte = reference; *byte; byte++)
		(void)fputc(iscntrl((unsigned char)*byte) ? '?' : *byte, file);
	(void)fputc('\n', file);
}

static int encode(const CachePin *pin, const Manifest *manifest, char **ret_text, size_t *ret_size)
{
	char blob[DIGEST_TEXT_SIZE], layer[DIGEST_TEXT_SIZE], *text = NULL;
	size_t size = 0;
	FILE *file = open_memstream(&text, &size);
	if (!file)
		return -ENOMEM;
	(void)fprintf(file, HEADER "\n");
	print_reference(file, pin->reference);
	(void)fprintf(file, "time %lld\n", (long long)pin->time);
	for (size_t i = 0; i < manifest->layer_count; i++)
		(void)fprintf(file, "blob %s\nlayer %s\n", digest_text(&manifest->layers[i].blob, blob),
			      digest_text(&manifest->layers[i].diff_id, layer));
	(void)fprintf(file, "end\n");
	if (fclose(file) != 0) {
		free(text);
		return -ENOMEM;
	}
	*ret_text = text;
	*ret_size = size;
	return 0;
}

/* Errors: -EBADMSG, -ENOMEM. `ended`: the last line was there, so that nothing was cut off. */
static int decode_line(CachePin *pin, const char *line, bool *ended)
{
	bool is_blob = strncmp(line, "blob ", 5) == 0;
	if (is_blob || strncmp(line, "layer ", 6) == 0) {
		Digest digest;
		return digest_from_text(line + (is_blob ? 5 : 6), &digest) < 0 ? -EBADMSG
									       : digest_list_add(&pin->keep, &digest);
	}
	if (strncmp(line, "reference ", 10) == 0) {
		free(pin->reference);
		pin->reference = strdup(line + 10);
		return pin->reference ? 0 : -ENOMEM;
	}
	if (strncmp(line, "time ", 5) == 0)
		pin->time = strtoll(line + 5, NULL, 10);
	*ended = strcmp(line, "end") == 0;
	return 0; /* what a later version says besides does not matter here */
}

static int decode(char *text, CachePin *pin)
{
	char *rest = NULL, *line = strtok_r(text, "\n", &rest);
	bool ended = false;
	int r = line && strcmp(line, HEADER) == 0 ? 0 : -EBADMSG;
	while (r == 0 && (line = strtok_r(NULL, "\n", &rest)))
		r = decode_line(pin, line, &ended);
	return r == 0 && (!ended || !pin->reference) ? -EBADMSG : r;
}

static int put(CacheStore *store, const CachePin *pin, const Manifest *manifest)
{
	char path[PATH_SIZE];
	_cleanup_free_ char *text = NULL;
	size_t size;
	int r = encode(pin, manifest, &text, &size);
	if (r == 0 && mkdirat(store->dirfd, directories[pin->kind], CACHE_DIRECTORY_MODE) < 0 && errno != EEXIST)
		r = -errno;
	return r == 0 ? fd_replace_file(store->dirfd, pin_path(pin->kind, &pin->manifest, path), text, size,
					CACHE_FILE_MODE)
		      : r;
}

int cache_pin_add(CacheStore *store, CachePinKind kind, const Digest *manifest, const char *reference, Error *error)
{
	char text[DIGEST_TEXT_SIZE];
	_cleanup_(pin_done) CachePin pin = { .kind = kind, .manifest = *manifest, .time = (int64_t)time(NULL) };
	_cleanup_(manifest_done) Manifest parsed = { 0 };
	int r = read_manifest(store, manifest, &parsed);
	if (r == -ENODATA)
		return error_set(error, r, "%s is no image that imgfs exported; there is nothing to pin",
				 digest_text(manifest, text));
	if (r < 0)
		return error_set(error, r == -EBADMSG ? -ENOENT : r,
				 "the cache %s does not have the manifest %s; imgfs pull gets it", store->path,
				 digest_text(manifest, text));
	pin.reference = strdup(reference);
	if (!pin.reference)
		return error_set(error, -ENOMEM, "out of memory");
	_cleanup_close_ int lock = -1;
	r = cache_evict_lock(store, true, &lock);
	if (r == 0)
		r = put(store, &pin, &parsed);
	return r < 0 ? cache_write_failed(store, directories[kind], r, error) : 0;
}

int cache_pin_remove(CacheStore *store, CachePinKind kind, const Digest *manifest, Error *error)
{
	char path[PATH_SIZE], text[DIGEST_TEXT_SIZE];
	_cleanup_close_ int directory = openat(store->dirfd, directories[kind], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r = directory < 0 || unlinkat(store->dirfd, pin_path(kind, manifest, path), 0) < 0 || fsync(directory) < 0
			? -errno
			: 0;
	if (r == -ENOENT)
		return error_set(error, r, "%s is not %s in the cache %s", digest_text(manifest, text),
				 kind == CACHE_PIN ? "pinned" : "sealed", store->path);
	return r < 0 ? cache_write_failed(store, directories[kind], r, error) : 0;
}

bool cache_pin_has(CacheStore *store, CachePinKind kind, const Digest *manifest)
{
	char path[PATH_SIZE];
	return faccessat(store->dirfd, pin_path(kind, manifest, path), F_OK, 0) == 0;
}

typedef struct PinList {
	CacheStore *store;
	CachePin *pins;
	size_t count;
	Error *error;
} PinList;

static int read_pin(PinList *list, CachePin *pin)
{
	char path[PATH_SIZE];
	_cleanup_free_ char *text = NULL;
	size_t size;
	int r = fd_read_file(list->store->dirfd, pin_path(pin->kind, &pin->manifest, path), FILE_MAX, &text, &size);
	if (r == 0)
		r = strlen(text) == size ? decode(text, pin) : -EBADMSG;
	if (r == 0 || r == -ENOENT || r == -ENOMEM)
		return r;
	/* It protects what the manifest names, whatever became of the file. */
	_cleanup_(manifest_done) Manifest manifest = { 0 };
	free(pin->reference);
	digest_list_done(&pin->keep);
	pin->keep = (DigestList){ 0 };
	pin->reference = strdup("");
	if (!pin->reference)
		return -ENOMEM;
	r = read_manifest(list->store, &pin->manifest, &manifest);
	for (size_t i = 0; r == 0 && i < manifest.layer_count; i++) {
		r = digest_list_add(&pin->keep, &manifest.layers[i].blob);
		if (r == 0)
			r = digest_list_add(&pin->keep, &manifest.layers[i].diff_id);
	}
	if (r == -ENOMEM)
		return r;
	return r < 0 ? error_set(list->error, -EBADMSG,
				 "%s/%s is damaged, and nobody knows what it protects; remove it, or put it back",
				 list->store->path, path)
		     : 0;
}

static int add_pin(PinList *list, CachePinKind kind, const char *name)
{
	_cleanup_(pin_done) CachePin pin = { .kind = kind };
	if (digest_from_hex(name, &pin.manifest) < 0)
		return 0;
	int r = read_pin(list, &pin);
	if (r < 0)
		return r == -ENOENT ? 0 : r; /* taken back meanwhile */
	CachePin *pins = reallocarray(list->pins, list->count + 1, sizeof(*pins));
	if (!pins)
		return -ENOMEM;
	list->pins = pins;
	pins[list->count++] = pin;
	pin = (CachePin){ 0 };
	return 0;
}

static int list_kind(PinList *list, CachePinKind kind)
{
	int fd = openat(list->store->dirfd, directories[kind], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	_cleanup_closedir_ DIR *directory = fdopendir(fd);
	if (!directory) {
		(void)close(fd);
		return -ENOMEM;
	}
	int r = 0;
	for (struct dirent *entry; r == 0 && (entry = readdir(directory));)
		r = add_pin(list, kind, entry->d_name);
	return r;
}

int cache_pins_list(CacheStore *store, CachePin **ret_pins, size_t *ret_count, Error *error)
{
	Error own = { 0 };
	PinList list = { .store = store, .error = &own };
	int r = 0;
	for (CachePinKind kind = 0; r == 0 && kind < CACHE_PIN_KINDS; kind++)
		r = list_kind(&list, kind);
	if (r < 0) {
		cache_pins_free(list.pins, list.count);
		return error_set(error, r, "the pins of %s cannot be read: %s", store->path, error_text(&own, r));
	}
	*ret_pins = list.pins;
	*ret_count = list.count;
	return 0;
}
