#include "tools/export/store.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/base/fd.h"
#include "tools/export/store-private.h"

char *store_default_path(void)
{
	char *path = NULL;
	const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
	int length;
	if (geteuid() == 0)
		return strdup("/var/lib/imgfs/store");
	if (data && data[0] == '/')
		length = asprintf(&path, "%s/imgfs/store", data);
	else
		length = asprintf(&path, "%s/.local/share/imgfs/store", home && home[0] == '/' ? home : "");
	return length < 0 ? NULL : path;
}

/* Is there nothing in the directory that somebody else might miss? */
static int directory_is_free(int fd)
{
	int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (copy < 0)
		return -errno;
	_cleanup_closedir_ DIR *directory = fdopendir(copy);
	if (!directory) {
		(void)close(copy);
		return -ENOMEM;
	}
	for (struct dirent *entry = readdir(directory); entry; entry = readdir(directory)) {
		const char *name = entry->d_name;
		/* ".tmp-": another process that makes this very store right now. */
		bool harmless = strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strcmp(name, "lost+found") == 0 ||
				strncmp(name, ".tmp-", 5) == 0;
		if (!harmless)
			return 0;
	}
	return 1;
}

/* 1: a store; 0: no marker. */
static int read_marker(Store *store, Error *error)
{
	_cleanup_free_ char *text = NULL;
	size_t size;
	int r = fd_read_file(store->fd, STORE_MARKER_NAME, 4096, &text, &size);
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return error_set(error, r, "%s: cannot read %s: %s", store->path, STORE_MARKER_NAME,
				 error_text(NULL, r));
	if (strcmp(text, STORE_MARKER_TEXT) != 0)
		return error_set(
			error, -EEXIST,
			"%s is a store of another version (\"%.40s\"); use the imgfs that made it, or another --store",
			store->path, text);
	return 1;
}

/* The marker comes first: a crash after it leaves a store that the next call completes. */
static int make_store(Store *store, Error *error)
{
	int r = read_marker(store, error);
	if (r < 0)
		return r;
	if (r == 0) {
		r = directory_is_free(store->fd);
		/* Whoever is making this store may have put the marker there meanwhile. */
		if (r == 0 && faccessat(store->fd, STORE_MARKER_NAME, F_OK, 0) < 0)
			return error_set(error, -EEXIST,
					 "%s is neither empty nor an imgfs store; name an empty directory by --store",
					 store->path);
		if (r >= 0)
			r = fd_replace_file(store->fd, STORE_MARKER_NAME, STORE_MARKER_TEXT, strlen(STORE_MARKER_TEXT),
					    0644);
		if (r < 0)
			return store_error(store, r, STORE_MARKER_NAME, error);
	}
	static const char *const directories[] = { "blobs/sha256", "layers", "repositories", "frames", "tmp" };
	for (size_t i = 0; i < ELEMENTS(directories); i++) {
		r = store_make_directories(store, directories[i], error);
		if (r < 0)
			return r;
	}
	store_temporary_sweep(store);
	return 0;
}

static int check_store(Store *store, Error *error)
{
	int r = read_marker(store, error);
	if (r == 0)
		r = error_set(error, -ENOENT, "%s is no imgfs store; `imgfs export` makes one, --store names another",
			      store->path);
	return r < 0 ? r : 0;
}

int store_open(const char *path, bool create, Store **ret_store, Error *error)
{
	_cleanup_(store_free_p) Store *store = calloc(1, sizeof(*store));
	if (!store)
		return -ENOMEM;
	store->fd = -1;
	store->path = strdup(path);
	if (!store->path)
		return -ENOMEM;
	if (create) {
		int r = fd_make_directories(AT_FDCWD, path, 0755);
		if (r < 0)
			return error_set(error, r, "cannot make the store %s: %s; --store names another place", path,
					 error_text(NULL, r));
	}
	store->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (store->fd < 0) {
		int r = -errno;
		if (r == -ENOENT)
			return error_set(error, r,
					 "there is no store %s; `imgfs export` makes one, --store names another", path);
		return error_set(error, r, "cannot open the store %s: %s", path, error_text(NULL, r));
	}
	int r = create ? make_store(store, error) : check_store(store, error);
	if (r < 0)
		return r;
	*ret_store = TAKE_PTR(store);
	return 0;
}

Store *store_free(Store *store)
{
	if (store) {
		store_frames_free(store->frames);
		if (store->fd >= 0)
			(void)close(store->fd);
		free(store->path);
		free(store);
	}
	return NULL;
}

const char *store_path(const Store *store)
{
	return store->path;
}

void store_blob_path(const Digest *digest, char ret_path[static STORE_PATH_SIZE])
{
	char hex[DIGEST_HEX_SIZE];
	(void)snprintf(ret_path, STORE_PATH_SIZE, "blobs/sha256/%s", digest_hex(digest, hex));
}

int store_blob_open(Store *store, const Digest *digest, int *ret_fd, uint64_t *ret_size)
{
	char path[STORE_PATH_SIZE];
	store_blob_path(digest, path);
	_cleanup_close_ int fd = openat(store->fd, path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat status;
	if (fd < 0 || fstat(fd, &status) < 0)
		return -errno;
	if (!S_ISREG(status.st_mode))
		return -ENOENT;
	*ret_size = (uint64_t)status.st_size;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* Is exactly this in the file? */
static bool holds(const Store *store, const char *path, const void *data, size_t size)
{
	_cleanup_free_ char *found = NULL;
	size_t found_size;
	return fd_read_file(store->fd, path, size, &found, &found_size) == 0 && found_size == size &&
	       (size == 0 || memcmp(found, data, size) == 0);
}

int store_blob_put(Store *store, const void *data, size_t size, Digest *ret_digest, Error *error)
{
	Digest digest;
	char path[STORE_PATH_SIZE];
	int r = digest_of(data, size, &digest);
	if (r < 0)
		return r;
	store_blob_path(&digest, path);
	/* One that has rotten is written again. */
	if (!holds(store, path, data, size)) {
		r = store_put(store, path, data, size, error);
		if (r < 0)
			return r;
	}
	*ret_digest = digest;
	return 0;
}
