#include "tools/export/store-gc.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/format/manifest.h"
#include "tools/export/digest-set.h"
#include "tools/export/store-image.h"
#include "tools/export/store-lock.h"
#include "tools/export/store-private.h"

typedef struct Collection {
	Store *store;
	bool dry_run;
	DigestSet blobs;  /* reached objects of blobs/, sealed after the marking */
	DigestSet layers; /* reached diffIDs */
	StoreGcResult result;
	Error *error;
} Collection;

static int mark_manifest(Collection *collection, const Manifest *manifest)
{
	int r = digest_set_add(&collection->blobs, &manifest->config);
	for (size_t i = 0; i < manifest->layer_count && r == 0; i++) {
		r = digest_set_add(&collection->blobs, &manifest->layers[i].blob);
		if (r == 0)
			r = digest_set_add(&collection->layers, &manifest->layers[i].diff_id);
	}
	return r;
}

/*
 * A tag counts only if it is what an export published: bytes whose digest is an object of the store. From one that rotted, it cannot be told
 * what it meant to keep.
 */
static int on_tag(void *arg, const char *name, const char *tag, time_t changed _unused_)
{
	Collection *collection = arg;
	Store *store = collection->store;
	_cleanup_free_ char *json = NULL;
	size_t size;
	Manifest manifest = { 0 };
	Digest digest;
	char path[STORE_PATH_SIZE];
	int r = store_tag_get(store, name, tag, &json, &size);
	if (r == -ENOENT) /* removed meanwhile */
		return 0;
	if (r == 0)
		r = digest_of(json, size, &digest);
	if (r == 0) {
		store_blob_path(&digest, path);
		r = faccessat(store->fd, path, F_OK, 0) < 0 ? -EBADMSG : manifest_parse(json, size, &manifest, NULL);
	}
	if (r == 0)
		r = digest_set_add(&collection->blobs, &digest);
	if (r == 0)
		r = mark_manifest(collection, &manifest);
	manifest_done(&manifest);
	collection->result.kept_tags++;
	if (r < 0 && r != -ENOMEM)
		return error_set(
			collection->error, -EBADMSG,
			"store %s: nothing is deleted, since the tag %s:%s is damaged (%s) and what it keeps is not "
			"known; export that image again, or take the tag away by `imgfs rm %s:%s`",
			store->path, name, tag, error_text(NULL, r), name, tag);
	return r;
}

static int mark(Collection *collection)
{
	int r = store_tag_each(collection->store, on_tag, collection);
	digest_set_seal(&collection->layers);
	/* Servers and exports find a layer by its record, which may name another blob than a manifest. */
	for (size_t i = 0; i < collection->layers.count && r == 0; i++) {
		ManifestLayer layer;
		if (store_layer_get(collection->store, &collection->layers.items[i], &layer, NULL) == 0)
			r = digest_set_add(&collection->blobs, &layer.blob);
	}
	digest_set_seal(&collection->blobs);
	return r;
}

/* Decides about one object. 1: it goes; 0: it stays; or a negative errno. */
typedef int Judge(Collection *collection, const Digest *digest, const struct stat *status);

/* Goes through the objects of a directory that are named by digests, and deletes some. */
static int sweep(Collection *collection, const char *path, Judge *judge, uint64_t *count)
{
	Store *store = collection->store;
	int fd = openat(store->fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	_cleanup_closedir_ DIR *directory = fdopendir(fd);
	if (!directory) {
		(void)close(fd);
		return -ENOMEM;
	}
	bool changed = false;
	for (struct dirent *entry = readdir(directory); entry; entry = readdir(directory)) {
		Digest digest;
		struct stat status;
		if (digest_from_hex(entry->d_name, &digest) < 0 ||
		    fstatat(fd, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(status.st_mode))
			continue;
		int r = judge(collection, &digest, &status);
		if (r < 0)
			return r;
		if (r == 0)
			continue;
		if (!collection->dry_run && unlinkat(fd, entry->d_name, 0) < 0 && errno != ENOENT)
			return -errno;
		changed = true;
		++*count;
		collection->result.bytes += (uint64_t)status.st_size;
	}
	return changed && !collection->dry_run && fsync(fd) < 0 ? -errno : 0;
}

static int judge_manifest(Collection *collection, const Digest *digest, const struct stat *status)
{
	_cleanup_free_ char *json = NULL;
	size_t size;
	Manifest manifest = { 0 };
	if (digest_set_has(&collection->blobs, digest) || status->st_size > MANIFEST_SIZE_MAX)
		return 0;
	int r = store_blob_read(collection->store, digest, MANIFEST_SIZE_MAX, &json, &size);
	if (r == 0 && json[0] != '{')
		return 0;
	if (r == 0)
		r = manifest_parse(json, size, &manifest, NULL);
	manifest_done(&manifest);
	if (r == -ENOMEM)
		return r;
	/* What is damaged or no manifest goes with the blobs. */
	return r == 0 || r == -ENODATA;
}

static int judge_layer(Collection *collection, const Digest *digest, const struct stat *status _unused_)
{
	return !digest_set_has(&collection->layers, digest);
}

static int judge_frames(Collection *collection, const Digest *digest, const struct stat *status _unused_)
{
	return !digest_set_has(&collection->blobs, digest);
}

static int judge_profile(Collection *collection, const Digest *digest, const struct stat *status _unused_)
{
	return !digest_set_has(&collection->blobs, digest);
}

static int judge_blob(Collection *collection, const Digest *digest, const struct stat *status)
{
	if (!digest_set_has(&collection->blobs, digest)) {
		/* In a dry run the manifests are still there, and counted. */
		return !collection->dry_run || judge_manifest(collection, digest, status) == 0;
	}
	collection->result.kept_blobs++;
	collection->result.kept_bytes += (uint64_t)status->st_size;
	return 0;
}

static int collect(Collection *collection)
{
	StoreGcResult *result = &collection->result;
	int r = mark(collection);
	if (r == 0)
		r = sweep(collection, "blobs/sha256", judge_manifest, &result->manifests);
	if (r == 0)
		r = sweep(collection, "layers", judge_layer, &result->layers);
	if (r == 0)
		r = sweep(collection, "frames", judge_frames, &result->frame_lists);
	if (r == 0)
		r = sweep(collection, "profiles", judge_profile, &result->profiles);
	if (r == 0)
		r = sweep(collection, "blobs/sha256", judge_blob, &result->blobs);
	if (r == 0 && !collection->dry_run) {
		store_temporary_sweep(collection->store);
		store_tag_prune(collection->store);
	}
	return r;
}

int store_gc(Store *store, const StoreGcOptions *options, StoreGcResult *ret_result, Error *error)
{
	Error found = { 0 };
	Collection collection = { .store = store, .dry_run = options->dry_run, .error = &found };
	_cleanup_(store_collector_leave) StoreCollector collector = STORE_COLLECTOR_NULL;
	int r = store_collector_enter(store, options->wait, options->waiting, options->arg, &collector, error);
	if (r < 0)
		return r;
	r = collect(&collection);
	digest_set_done(&collection.blobs);
	digest_set_done(&collection.layers);
	if (r < 0 && found.message[0])
		return error_set(error, r, "%s", found.message);
	if (r < 0)
		return error_set(error, r, "store %s: cannot delete what no tag reaches: %s", store->path,
				 error_text(NULL, r));
	*ret_result = collection.result;
	return 0;
}
