#include "fs/cache/cache-store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

#include "fs/base/fd.h"
#include "fs/cache/cache-present.h"
#include "fs/cache/cache-private.h"

#define MARKER        "imgfs-cache"
#define MARKER_TEXT   "imgfs cache 1\n"
#define TEMPORARY     ".tmp-"
#define TEMPORARY_AGE 3600 /* seconds after which nobody is still writing one */
#define TAG_PATH_SIZE (3 * REFERENCE_NAME_MAX)
#define TAG_TEXT_MAX  128u
#define HEARSAY       "hearsay\n"

const char *const cache_kind_directories[CACHE_KINDS] = {
	[CACHE_INDEX] = "indexes",  [CACHE_VIEW] = "views",      [CACHE_MANIFEST] = "manifests",
	[CACHE_BLOB] = "blobs",     [CACHE_DECODED] = "decoded", [CACHE_PROFILE] = "profiles",
	[CACHE_CONFIG] = "configs",
};

/* Is the directory empty, but for what an interrupted creation may have left? */
static int directory_is_empty(int dirfd, bool *ret_empty)
{
	int copy = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (copy < 0)
		return -errno;
	_cleanup_closedir_ DIR *directory = fdopendir(copy);
	if (!directory) {
		int r = -errno;
		(void)close(copy);
		return r;
	}
	bool empty = true;
	for (struct dirent *entry; (entry = readdir(directory));)
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
		    strcmp(entry->d_name, "lost+found") != 0 && strncmp(entry->d_name, TEMPORARY, 5) != 0)
			empty = false;
	*ret_empty = empty;
	return 0;
}

int cache_temporary(int dirfd, char ret_name[static CACHE_TEMPORARY_SIZE])
{
	uint64_t random;
	if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
		return -EIO;
	(void)snprintf(ret_name, CACHE_TEMPORARY_SIZE, TEMPORARY "%016llx", (unsigned long long)random);
	int fd = openat(dirfd, ret_name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, CACHE_FILE_MODE);
	return fd < 0 ? -errno : fd;
}

/* Writes a temporary in `dirfd` and renames it to `name`; no fsync, see the header. */
static int put_file(int dirfd, const char *name, const void *data, size_t size)
{
	char temporary[CACHE_TEMPORARY_SIZE];
	_cleanup_close_ int fd = cache_temporary(dirfd, temporary);
	if (fd < 0)
		return fd;
	int r = fd_write_all(fd, data, size);
	if (r == 0 && renameat(dirfd, temporary, dirfd, name) < 0)
		r = -errno;
	if (r < 0)
		(void)unlinkat(dirfd, temporary, 0);
	return r;
}

/* Has it the directories that every cache has had from the first on? */
static bool looks_like_cache(int dirfd)
{
	static const char *const names[] = { "indexes", "views", "manifests", "blobs", "tags" };
	struct stat status;
	for (size_t i = 0; i < ELEMENTS(names); i++)
		if (fstatat(dirfd, names[i], &status, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(status.st_mode))
			return false;
	return true;
}

/*
 * Makes sure that the directory is a cache, or makes it one if it is empty and that is wanted. A marker that rotted must not cost the cache, so one that is wrong is
 * mended: a later layout needs a marker of another name.
 */
static int claim(int dirfd, bool create)
{
	_cleanup_free_ char *text = NULL;
	size_t size;
	int r = fd_read_file(dirfd, MARKER, 64, &text, &size);
	if (r == 0 && strcmp(text, MARKER_TEXT) == 0)
		return 0;
	if (looks_like_cache(dirfd)) {
		r = put_file(dirfd, MARKER, MARKER_TEXT, strlen(MARKER_TEXT));
		return r == -ENOMEM ? r : 0; /* where it cannot be written it is not in the way */
	}
	if (r == 0 || r == -EFBIG)
		return -EEXIST;
	if (r != -ENOENT)
		return r;
	bool empty = false;
	r = directory_is_empty(dirfd, &empty);
	if (r < 0)
		return r;
	if (empty && !create)
		return -ENOENT;
	if (empty)
		return put_file(dirfd, MARKER, MARKER_TEXT, strlen(MARKER_TEXT));
	/* Somebody else may have made it a cache between the two looks. */
	return faccessat(dirfd, MARKER, F_OK, 0) == 0 ? 0 : -EEXIST;
}

/* Removes temporaries that nobody can be writing any more. Failures only leave them for the next time. */
static void sweep(int dirfd, const char *name)
{
	int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return;
	_cleanup_closedir_ DIR *directory = fdopendir(fd);
	if (!directory) {
		(void)close(fd);
		return;
	}
	time_t now = time(NULL);
	for (struct dirent *entry; (entry = readdir(directory));) {
		struct stat status;
		if (strncmp(entry->d_name, TEMPORARY, strlen(TEMPORARY)) == 0 &&
		    fstatat(fd, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
		    now - status.st_mtime > TEMPORARY_AGE)
			(void)unlinkat(fd, entry->d_name, 0);
	}
}

static int prepare_directories(int dirfd)
{
	if (mkdirat(dirfd, "tags", CACHE_DIRECTORY_MODE) < 0 && errno != EEXIST)
		return -errno;
	for (size_t i = 0; i < CACHE_KINDS; i++) {
		/* A cache that cannot be written, of an older build, lacks those that came later, and is as good. */
		if (mkdirat(dirfd, cache_kind_directories[i], CACHE_DIRECTORY_MODE) < 0 && errno != EEXIST &&
		    errno != EROFS)
			return -errno;
		sweep(dirfd, cache_kind_directories[i]);
	}
	sweep(dirfd, "pins");
	sweep(dirfd, "seals");
	return 0;
}

int cache_store_open(const char *path, bool create, CacheStore **ret_store, Error *error)
{
	_cleanup_(cache_store_free_p) CacheStore *store = calloc(1, sizeof(*store));
	if (!store)
		return error_set(error, -ENOMEM, "out of memory");
	store->dirfd = -1;
	store->path = strdup(path);
	if (!store->path)
		return error_set(error, -ENOMEM, "out of memory");

	int r = create ? fd_make_directories(AT_FDCWD, path, CACHE_DIRECTORY_MODE) : 0;
	if (r == 0) {
		store->dirfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		r = store->dirfd < 0 ? -errno : claim(store->dirfd, create);
	}
	if (r == -EEXIST)
		return error_set(error, r, "%s is not an imgfs cache and not empty; name another directory", path);
	if (r == -ENOENT && !create)
		return error_set(error, r,
				 "there is no cache %s; a mount or `imgfs pull` makes one, --cache names another",
				 path);
	if (r == 0)
		r = prepare_directories(store->dirfd);
	if (r < 0)
		return error_set(error, r, "cannot use %s as a cache: %s; name a directory this user can write to",
				 path, error_text(NULL, r));
	*ret_store = TAKE_PTR(store);
	return 0;
}

int cache_store_adopt(int dirfd, CacheStore **ret_store)
{
	_cleanup_close_ int owned = dirfd;
	_cleanup_(cache_store_free_p) CacheStore *store = calloc(1, sizeof(*store));
	char link[32], path[PATH_MAX];
	if (!store)
		return -ENOMEM;
	store->dirfd = TAKE_FD(owned);
	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", store->dirfd);
	ssize_t size = readlink(link, path, sizeof(path) - 1);
	store->path = strndup(size > 0 ? path : "the cache", size > 0 ? (size_t)size : SIZE_MAX);
	if (!store->path)
		return -ENOMEM;
	*ret_store = TAKE_PTR(store);
	return 0;
}

int cache_store_fd(const CacheStore *store)
{
	return store->dirfd;
}

CacheStore *cache_store_free(CacheStore *store)
{
	if (store) {
		close_p(&store->dirfd);
		free(store->path);
		free(store);
	}
	return NULL;
}

/* Room for "manifests/<hex>". */
#define OBJECT_PATH_SIZE (sizeof("manifests/") + DIGEST_HEX_SIZE)

int cache_store_get(CacheStore *store, CacheKind kind, const Digest *digest, int *ret_fd)
{
	char hex[DIGEST_HEX_SIZE], path[OBJECT_PATH_SIZE];
	(void)snprintf(path, sizeof(path), "%s/%s", cache_kind_directories[kind], digest_hex(digest, hex));
	int fd = openat(store->dirfd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

int cache_store_read(CacheStore *store, CacheKind kind, const Digest *digest, size_t max, char **ret_data,
		     size_t *ret_size)
{
	_cleanup_close_ int fd = -1;
	struct stat status;
	if (cache_store_get(store, kind, digest, &fd) < 0 || fstat(fd, &status) < 0 || status.st_size <= 0 ||
	    (uint64_t)status.st_size > max)
		return -ENOENT;
	size_t size = (size_t)status.st_size;
	_cleanup_free_ char *data = malloc(size);
	if (!data)
		return -ENOMEM;
	if (fd_pread_all(fd, data, size, 0) < 0)
		return -ENOENT;
	*ret_data = TAKE_PTR(data);
	*ret_size = size;
	return 0;
}

int cache_store_read_checked(CacheStore *store, CacheKind kind, const Digest *digest, size_t max, char **ret_data,
			     size_t *ret_size)
{
	_cleanup_free_ char *data = NULL;
	size_t size;
	Digest found;
	int r = cache_store_read(store, kind, digest, max, &data, &size);
	if (r < 0)
		return r;
	if (digest_of(data, size, &found) < 0 || !digest_equal(&found, digest))
		return -ENOENT;
	*ret_data = TAKE_PTR(data);
	*ret_size = size;
	return 0;
}

int cache_write_failed(const CacheStore *store, const char *what, int code, Error *error)
{
	return error_set(error, code, "cannot write %s to the cache %s: %s%s", what, store->path,
			 error_text(NULL, code), code == -ENOSPC || code == -EDQUOT ? "; free some space" : "");
}

int cache_store_put(CacheStore *store, CacheKind kind, const Digest *digest, const void *data, size_t size,
		    Error *error)
{
	char hex[DIGEST_HEX_SIZE];
	_cleanup_close_ int dirfd =
		openat(store->dirfd, cache_kind_directories[kind], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r = dirfd < 0 ? -errno : put_file(dirfd, digest_hex(digest, hex), data, size);
	return r < 0 ? cache_write_failed(store, cache_kind_directories[kind], r, error) : 0;
}

/*
 * Opens a file read-write, creating it, and gives it its size. The contents stay if `keep`, or if the size was `old`: a bitmap without the
 * marks that came later.
 */
static int open_sized(int dirfd, const char *name, uint64_t size, bool keep, uint64_t old, int *ret_fd)
{
	_cleanup_close_ int fd = openat(dirfd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, CACHE_FILE_MODE);
	struct stat status;
	if (fd < 0 || fstat(fd, &status) < 0)
		return -errno;
	if (status.st_size != (off_t)size) {
		if (!keep && status.st_size != (off_t)old && ftruncate(fd, 0) < 0)
			return -errno;
		if (ftruncate(fd, (off_t)size) < 0)
			return -errno;
	}
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int open_blob(CacheStore *store, const Digest *blob, uint64_t blob_size, uint32_t chunk_count, int *ret_data_fd,
		     int *ret_present_fd)
{
	char hex[DIGEST_HEX_SIZE], path[sizeof("blobs/") + DIGEST_HEX_SIZE];
	(void)snprintf(path, sizeof(path), "blobs/%s", digest_hex(blob, hex));
	if (blob_size > INT64_MAX)
		return -EFBIG;
	if (mkdirat(store->dirfd, path, CACHE_DIRECTORY_MODE) < 0 && errno != EEXIST)
		return -errno;
	_cleanup_close_ int dirfd = openat(store->dirfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (dirfd < 0)
		return -errno;
	_cleanup_close_ int data = -1, present = -1;
	int r = open_sized(dirfd, "data", blob_size, true, blob_size, &data);
	if (r == 0)
		r = open_sized(dirfd, "present", present_size(chunk_count), false, ((uint64_t)chunk_count + 7) / 8,
			       &present);
	if (r < 0)
		return r;
	*ret_data_fd = TAKE_FD(data);
	*ret_present_fd = TAKE_FD(present);
	return 0;
}

int cache_store_blob(CacheStore *store, const Digest *blob, uint64_t blob_size, uint32_t chunk_count, int *ret_data_fd,
		     int *ret_present_fd, Error *error)
{
	int r = open_blob(store, blob, blob_size, chunk_count, ret_data_fd, ret_present_fd);
	if (r == -EROFS && cache_store_blob_get(store, blob, ret_data_fd, ret_present_fd) == 0)
		return 0;
	return r < 0 ? cache_write_failed(store, "a blob's files", r, error) : 0;
}

int cache_store_blob_get(CacheStore *store, const Digest *blob, int *ret_data_fd, int *ret_present_fd)
{
	char hex[DIGEST_HEX_SIZE], path[sizeof("blobs//present") + DIGEST_HEX_SIZE];
	(void)snprintf(path, sizeof(path), "blobs/%s/data", digest_hex(blob, hex));
	_cleanup_close_ int data = openat(store->dirfd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (data < 0)
		return -errno;
	(void)snprintf(path, sizeof(path), "blobs/%s/present", hex);
	int present = openat(store->dirfd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (present < 0)
		return -errno;
	*ret_data_fd = TAKE_FD(data);
	*ret_present_fd = present;
	return 0;
}

typedef struct Dated {
	struct timespec time;
	Digest digest;
} Dated;

static int compare_dated(const void *left, const void *right)
{
	const Dated *a = left, *b = right;
	if (a->time.tv_sec != b->time.tv_sec)
		return a->time.tv_sec < b->time.tv_sec ? 1 : -1;
	return (a->time.tv_nsec < b->time.tv_nsec) - (a->time.tv_nsec > b->time.tv_nsec);
}

static int list_dated(DIR *directory, Dated **ret_list, size_t *ret_count)
{
	size_t count = 0, room = 0;
	_cleanup_free_ Dated *list = NULL;
	for (struct dirent *entry; (entry = readdir(directory));) {
		struct stat status;
		Digest digest;
		if (digest_from_hex(entry->d_name, &digest) < 0 ||
		    fstatat(dirfd(directory), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		if (count == room) {
			room = 2 * room + 16;
			Dated *larger = reallocarray(list, room, sizeof(*larger));
			if (!larger)
				return -ENOMEM;
			list = larger;
		}
		list[count++] = (Dated){ .time = status.st_mtim, .digest = digest };
	}
	*ret_list = TAKE_PTR(list);
	*ret_count = count;
	return 0;
}

int cache_store_newest(CacheStore *store, CacheKind kind, size_t max, Digest *ret_digests, size_t *ret_count)
{
	int fd = openat(store->dirfd, cache_kind_directories[kind], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	_cleanup_closedir_ DIR *directory = fdopendir(fd);
	if (!directory) {
		(void)close(fd);
		return -ENOMEM;
	}
	_cleanup_free_ Dated *list = NULL;
	size_t count;
	int r = list_dated(directory, &list, &count);
	if (r < 0)
		return r;
	if (count > 0)
		qsort(list, count, sizeof(*list), compare_dated);
	*ret_count = count < max ? count : max;
	for (size_t i = 0; i < *ret_count; i++)
		ret_digests[i] = list[i].digest;
	return 0;
}

/* The directory of a tag's file, and the file below it. A host may be any text but must stay one directory. */
static int tag_directory(const Reference *reference, char ret_path[static TAG_PATH_SIZE])
{
	const char *host = reference->host;
	if (host[0] == '\0' || host[0] == '.' || strchr(host, '/') || !reference_name_valid(reference->name) ||
	    !reference_tag_valid(reference->tag))
		return -EINVAL;
	(void)snprintf(ret_path, TAG_PATH_SIZE, "tags/%s/%s/_tags", host, reference->name);
	return 0;
}

/* The text of a tag's file, malloc'ed; NULL: there is none. */
static char *read_tag(CacheStore *store, const Reference *reference)
{
	char directory[TAG_PATH_SIZE], path[TAG_PATH_SIZE + REFERENCE_TAG_MAX + 2];
	if (tag_directory(reference, directory) < 0)
		return NULL;
	(void)snprintf(path, sizeof(path), "%s/%s", directory, reference->tag);
	char *text = NULL;
	size_t size;
	return fd_read_file(store->dirfd, path, TAG_TEXT_MAX, &text, &size) < 0 ? NULL : text;
}

int cache_store_tag_get(CacheStore *store, const Reference *reference, Digest *ret_manifest)
{
	_cleanup_free_ char *text = read_tag(store, reference);
	if (!text)
		return -ENOENT;
	text[strcspn(text, "\n")] = '\0';
	return digest_from_text(text, ret_manifest) < 0 ? -ENOENT : 0;
}

bool cache_store_tag_is_hearsay(CacheStore *store, const Reference *reference)
{
	_cleanup_free_ char *text = read_tag(store, reference);
	return text && strcmp(text + strcspn(text, "\n"), "\n" HEARSAY) == 0;
}

static int put_tag(CacheStore *store, const Reference *reference, const Digest *manifest, const char *mark)
{
	char path[TAG_PATH_SIZE], digest[DIGEST_TEXT_SIZE], text[TAG_TEXT_MAX];
	int r = tag_directory(reference, path);
	if (r < 0)
		return r;
	r = fd_make_directories(store->dirfd, path, CACHE_DIRECTORY_MODE);
	if (r < 0)
		return r;
	_cleanup_close_ int dirfd = openat(store->dirfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dirfd < 0)
		return -errno;
	int length = snprintf(text, sizeof(text), "%s\n%s", digest_text(manifest, digest), mark);
	return put_file(dirfd, reference->tag, text, (size_t)length);
}

int cache_store_tag_put(CacheStore *store, const Reference *reference, const Digest *manifest, Error *error)
{
	int r = put_tag(store, reference, manifest, "");
	return r < 0 ? cache_write_failed(store, "a tag", r, error) : 0;
}

int cache_store_tag_put_hearsay(CacheStore *store, const Reference *reference, const Digest *manifest, Error *error)
{
	int r = put_tag(store, reference, manifest, HEARSAY);
	return r < 0 ? cache_write_failed(store, "a tag", r, error) : 0;
}
