#include "fs/cache/cache-contents.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fs/base/fd.h"
#include "fs/cache/cache-private.h"

#define TAG_MARK  "_tags"
#define DEPTH_MAX (REFERENCE_NAME_MAX / 2 + 4) /* host, the parts of a name, mark, tag */

static int open_directory(int at, const char *name, DIR **ret_directory)
{
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	*ret_directory = fdopendir(fd);
	if (*ret_directory)
		return 0;
	(void)close(fd);
	return -ENOMEM;
}

/* Tags as they are found. */
typedef struct TagList {
	CacheStore *store;
	CacheTag *tags;
	size_t count, room;
} TagList;

static int add_tag(TagList *list, const char *repository, const char *tag)
{
	_cleanup_free_ char *text = NULL;
	Reference reference;
	Digest manifest;
	if (asprintf(&text, "%s:%s", repository, tag) < 0)
		return -ENOMEM;
	if (reference_parse_remote(text, &reference, NULL) < 0 ||
	    cache_store_tag_get(list->store, &reference, &manifest) < 0)
		return 0;
	if (list->count == list->room) {
		size_t room = 2 * list->room + 16;
		CacheTag *tags = reallocarray(list->tags, room, sizeof(*tags));
		if (!tags)
			return -ENOMEM;
		list->tags = tags;
		list->room = room;
	}
	list->tags[list->count++] = (CacheTag){ .reference = TAKE_PTR(text), .manifest = manifest };
	return 0;
}

static int walk(TagList *list, int at, const char *name, const char *repository, bool tags, unsigned depth);

static int walk_entry(TagList *list, int at, const char *name, const char *repository, bool tags, unsigned depth)
{
	if (tags)
		return add_tag(list, repository, name);
	if (strcmp(name, TAG_MARK) == 0)
		return walk(list, at, name, repository, true, depth);
	_cleanup_free_ char *path = NULL;
	if (asprintf(&path, "%s%s%s", repository, repository[0] ? "/" : "", name) < 0)
		return -ENOMEM;
	return walk(list, at, name, path, false, depth);
}

/* `repository`: HOST/NAME as far as the path goes; `tags`: below it are tags. */
static int walk(TagList *list, int at, const char *name, const char *repository, bool tags, unsigned depth)
{
	_cleanup_closedir_ DIR *directory = NULL;
	int r = depth < DEPTH_MAX ? open_directory(at, name, &directory) : -ELOOP;
	if (r < 0)
		return r == -ENOENT || r == -ENOTDIR ? 0 : r; /* no directory, or gone meanwhile */
	for (struct dirent *entry; r == 0 && (entry = readdir(directory));)
		if (entry->d_name[0] != '.')
			r = walk_entry(list, dirfd(directory), entry->d_name, repository, tags, depth + 1);
	return r;
}

static int compare_tags(const void *left, const void *right)
{
	const CacheTag *a = left, *b = right;
	return strcmp(a->reference, b->reference);
}

int cache_contents_tags(CacheStore *store, CacheTag **ret_tags, size_t *ret_count)
{
	TagList list = { .store = store };
	int r = walk(&list, store->dirfd, "tags", "", false, 0);
	if (r < 0) {
		cache_contents_tags_free(list.tags, list.count);
		return r;
	}
	if (list.count > 0)
		qsort(list.tags, list.count, sizeof(*list.tags), compare_tags);
	*ret_tags = list.tags;
	*ret_count = list.count;
	return 0;
}

CacheTag *cache_contents_tags_free(CacheTag *tags, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(tags[i].reference);
	free(tags);
	return NULL;
}

int cache_contents_tag_find(CacheStore *store, const char *name, const char *tag, Digest *ret_manifest)
{
	_cleanup_closedir_ DIR *hosts = NULL;
	Reference reference = { 0 };
	Digest found, one;
	bool has_found = false;
	int r = open_directory(store->dirfd, "tags", &hosts);
	if (r < 0)
		return r;
	if (!reference_name_valid(name) || !reference_tag_valid(tag))
		return -ENOENT;
	(void)snprintf(reference.name, sizeof(reference.name), "%s", name);
	(void)snprintf(reference.tag, sizeof(reference.tag), "%s", tag);
	for (struct dirent *host; (host = readdir(hosts));) {
		(void)snprintf(reference.host, sizeof(reference.host), "%s", host->d_name);
		if (cache_store_tag_get(store, &reference, &one) < 0)
			continue;
		if (has_found && !digest_equal(&found, &one))
			return -ENOTUNIQ;
		found = one;
		has_found = true;
	}
	if (!has_found)
		return -ENOENT;
	*ret_manifest = found;
	return 0;
}

int cache_contents_tag_remove(CacheStore *store, const CacheTag *tag)
{
	Reference reference;
	_cleanup_free_ char *path = NULL;
	if (reference_parse_remote(tag->reference, &reference, NULL) < 0)
		return -EINVAL;
	if (asprintf(&path, "tags/%s/%s/" TAG_MARK "/%s", reference.host, reference.name, reference.tag) < 0)
		return -ENOMEM;
	return unlinkat(store->dirfd, path, 0) < 0 && errno != ENOENT ? -errno : 0;
}

/* `dated`: the file's time says when the object was written to. */
static void measure(int at, const char *name, bool dated, time_t now, CacheObject *object)
{
	struct stat status;
	if (fstatat(at, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
		return;
	object->bytes += (uint64_t)status.st_blocks * 512;
	if (dated && now - status.st_mtime < object->age)
		object->age = now - status.st_mtime;
}

int cache_contents_list(CacheStore *store, CacheKind kind, CacheObject **ret_objects, size_t *ret_count)
{
	_cleanup_closedir_ DIR *directory = NULL;
	_cleanup_free_ CacheObject *objects = NULL;
	size_t count = 0, room = 0;
	time_t now = time(NULL);
	int r = open_directory(store->dirfd, cache_kind_directories[kind], &directory);
	if (r < 0 && r != -ENOENT)
		return r;
	for (struct dirent *entry; directory && (entry = readdir(directory));) {
		CacheObject object = { .age = INT64_MAX };
		if (digest_from_hex(entry->d_name, &object.digest) < 0)
			continue;
		char path[DIGEST_HEX_SIZE + sizeof("/present")];
		measure(dirfd(directory), entry->d_name, true, now, &object);
		(void)snprintf(path, sizeof(path), "%.64s/data", entry->d_name);
		measure(dirfd(directory), path, true, now, &object);
		(void)snprintf(path, sizeof(path), "%.64s/present", entry->d_name);
		measure(dirfd(directory), path, false, now, &object); /* it is written to at each use */
		if (count == room) {
			room = 2 * room + 16;
			CacheObject *larger = reallocarray(objects, room, sizeof(*larger));
			if (!larger)
				return -ENOMEM;
			objects = larger;
		}
		objects[count++] = object;
	}
	*ret_objects = TAKE_PTR(objects);
	*ret_count = count;
	return 0;
}

static int unlink_one(int at, const char *path, int flags)
{
	return unlinkat(at, path, flags) < 0 && errno != ENOENT ? -errno : 0;
}

int cache_contents_remove(CacheStore *store, CacheKind kind, const Digest *digest)
{
	char hex[DIGEST_HEX_SIZE], path[sizeof("manifests//present") + DIGEST_HEX_SIZE];
	(void)digest_hex(digest, hex);
	if (kind != CACHE_BLOB) {
		(void)snprintf(path, sizeof(path), "%s/%s", cache_kind_directories[kind], hex);
		return unlink_one(store->dirfd, path, 0);
	}
	/* The bitmap first: without it the rest counts as nothing. */
	(void)snprintf(path, sizeof(path), "blobs/%s/present", hex);
	int r = unlink_one(store->dirfd, path, 0);
	(void)snprintf(path, sizeof(path), "blobs/%s/seal", hex);
	if (r == 0)
		r = unlink_one(store->dirfd, path, 0);
	(void)snprintf(path, sizeof(path), "blobs/%s/data", hex);
	if (r == 0)
		r = unlink_one(store->dirfd, path, 0);
	(void)snprintf(path, sizeof(path), "blobs/%s", hex);
	return r == 0 ? unlink_one(store->dirfd, path, AT_REMOVEDIR) : r;
}
