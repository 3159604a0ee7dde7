/* Tags: repositories/<name>/_manifests/<tag>, each a manifest. No repository's component starts with "_", so none can be taken for it. */
#include <fcntl.h>
#include <fts.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/base/fd.h"
#include "fs/format/reference.h"
#include "tools/export/store-private.h"

#define MANIFESTS_NAME "_manifests"

static int manifests_path(const char *name, const char *tag, char ret_path[static STORE_PATH_SIZE])
{
	if (!reference_name_valid(name) || !reference_tag_valid(tag))
		return -EINVAL;
	int length = snprintf(ret_path, STORE_PATH_SIZE, "repositories/%s/" MANIFESTS_NAME, name);
	return length < 0 || length >= STORE_PATH_SIZE ? -ENAMETOOLONG : 0;
}

static int tag_path(const char *name, const char *tag, char ret_path[static STORE_PATH_SIZE])
{
	int r = manifests_path(name, tag, ret_path);
	size_t used = r < 0 ? 0 : strlen(ret_path);
	if (r == 0 && snprintf(ret_path + used, STORE_PATH_SIZE - used, "/%s", tag) >= (int)(STORE_PATH_SIZE - used))
		r = -ENAMETOOLONG;
	return r;
}

int store_tag_get(Store *store, const char *name, const char *tag, char **ret_json, size_t *ret_size)
{
	char path[STORE_PATH_SIZE];
	if (tag_path(name, tag, path) < 0)
		return -ENOENT;
	int r = fd_read_file(store->fd, path, MANIFEST_SIZE_MAX, ret_json, ret_size);
	return r == -ENOTDIR || r == -EISDIR ? -ENOENT : r;
}

int store_tag_put(Store *store, const char *name, const char *tag, const char *json, size_t size, Error *error)
{
	char path[STORE_PATH_SIZE];
	int r = manifests_path(name, tag, path);
	if (r < 0)
		return error_set(
			error, -EINVAL,
			"\"%s:%s\" is no NAME:TAG; names are lower-case words joined by . _ - and /, tags up to "
			"128 of letters, digits, . _ -",
			name, tag);
	r = store_make_directories(store, path, error);
	if (r < 0)
		return r;
	r = tag_path(name, tag, path);
	return r < 0 ? r : store_put(store, path, json, size, error);
}

/* The directory is opened first: a collector may take it away as soon as it is empty. */
int store_tag_remove(Store *store, const char *name, const char *tag, Error *error)
{
	char path[STORE_PATH_SIZE];
	int r = manifests_path(name, tag, path) < 0 ? -ENOENT : 0;
	_cleanup_close_ int directory = r < 0 ? -1 : openat(store->fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (r == 0 && (directory < 0 || unlinkat(directory, tag, 0) < 0))
		r = errno == ENOTDIR || errno == EISDIR ? -ENOENT : -errno;
	if (r == 0 && fsync(directory) < 0)
		r = -errno;
	if (r == -ENOENT)
		return error_set(error, r, "store %s has no tag %s:%s; `imgfs ls` lists what it has", store->path, name,
				 tag);
	return r < 0 ? store_error(store, r, path, error) : 0;
}

void store_tag_prune(Store *store)
{
	_cleanup_free_ char *root = NULL;
	if (asprintf(&root, "%s/repositories", store->path) < 0)
		return;
	char *paths[] = { root, NULL };
	FTS *walk = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
	if (!walk)
		return;
	/* A directory that still holds something refuses to go. */
	for (FTSENT *entry = fts_read(walk); entry; entry = fts_read(walk)) {
		if (entry->fts_info == FTS_DP && entry->fts_level > 0)
			(void)rmdir(entry->fts_path);
	}
	(void)fts_close(walk);
}

/* Hands one file of a _manifests directory over; 0 goes on. */
static int visit_entry(const FTSENT *entry, size_t root_length, StoreTagVisitor *visit, void *arg)
{
	const char *manifests = entry->fts_path + entry->fts_pathlen - entry->fts_namelen - 1 - strlen(MANIFESTS_NAME);
	size_t name_length = (size_t)(manifests - entry->fts_path);
	if (name_length <= root_length + 1)
		return 0;
	_cleanup_free_ char *name = strndup(entry->fts_path + root_length, name_length - root_length - 1);
	if (!name)
		return -ENOMEM;
	if (!reference_name_valid(name) || !reference_tag_valid(entry->fts_name))
		return 0;
	return visit(arg, name, entry->fts_name, entry->fts_statp->st_mtime);
}

static int compare_names(const FTSENT **left, const FTSENT **right)
{
	return strcmp((*left)->fts_name, (*right)->fts_name);
}

int store_tag_each(Store *store, StoreTagVisitor *visit, void *arg)
{
	_cleanup_free_ char *root = NULL;
	if (asprintf(&root, "%s/repositories/", store->path) < 0)
		return -ENOMEM;
	char *paths[] = { root, NULL };
	FTS *walk = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, compare_names);
	if (!walk)
		return -errno;
	int r = 0;
	errno = 0;
	for (FTSENT *entry = fts_read(walk); entry && r == 0; entry = fts_read(walk)) {
		/* A collector may have taken an empty directory away meanwhile. */
		if (entry->fts_info == FTS_DNR || entry->fts_info == FTS_ERR)
			r = entry->fts_errno == ENOENT ? 0 : -entry->fts_errno;
		else if (entry->fts_info == FTS_F && entry->fts_level >= 2 &&
			 strcmp(entry->fts_parent->fts_name, MANIFESTS_NAME) == 0)
			r = visit_entry(entry, strlen(root), visit, arg);
		errno = 0;
	}
	if (r == 0 && errno != 0)
		r = -errno;
	(void)fts_close(walk);
	return r;
}
