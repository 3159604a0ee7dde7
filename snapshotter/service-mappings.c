/* Layers seen with other owners, for the user namespaces of containers: who is handed such a directory, and who takes it away. */
#include <string.h>

#include "snapshotter/service-private.h"

static bool has_text(char *const *texts, size_t count, const char *text)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(texts[i], text) == 0)
			return true;
	return false;
}

/* With the lock held. Takes `directory`, which may be NULL for want of memory. */
static int spare(Service *service, char *directory)
{
	_cleanup_free_ char *spared = directory;
	if (!spared)
		return -ENOMEM;
	if (has_text(service->mappings_spared, service->mappings_spared_count, spared))
		return 0;
	char **larger = reallocarray(service->mappings_spared, service->mappings_spared_count + 1, sizeof(*larger));
	if (!larger)
		return -ENOMEM;
	service->mappings_spared = larger;
	larger[service->mappings_spared_count++] = TAKE_PTR(spared);
	return 0;
}

/*
 * The snapshot's row is there before. So a Cleanup that begins after this finds it, and those that run already are told here, before the directory
 * is looked at: the mount is either not taken away, or was before and is made anew.
 */
int service_map(Service *service, const MountsIdmap *idmap, char **ret_directory, Error *error)
{
	(void)pthread_mutex_lock(&service->mapping_lock);
	int r = service->mappings_cleaners > 0 ? spare(service, mounts_idmap_directory(service->mounts, idmap)) : 0;
	(void)pthread_mutex_unlock(&service->mapping_lock);
	return r < 0 ? error_set(error, r, "out of memory")
		     : mounts_idmap(service->mounts, idmap, ret_directory, error);
}

/* The directories of a mapping: of ordinary layers, and of the lazy tree. */
static int mapping_directories(const Service *service, const MetaMapping *mapping, char *ret_directories[static 2])
{
	MountsIdmap idmap = { .uids = mapping->uids, .gids = mapping->gids };
	ret_directories[0] = mounts_idmap_directory(service->mounts, &idmap);
	idmap.lazy_id = mapping->lazy_id;
	ret_directories[1] = mounts_idmap_directory(service->mounts, &idmap);
	return ret_directories[0] && ret_directories[1] ? 0 : -ENOMEM;
}

typedef struct Wanted {
	Service *service;
	char **directories;
	size_t count;
} Wanted;

static void clean_directory(void *arg, const char *directory)
{
	const Wanted *wanted = arg;
	Service *service = wanted->service;
	if (has_text(wanted->directories, wanted->count, directory))
		return;
	(void)pthread_mutex_lock(&service->mapping_lock);
	if (!has_text(service->mappings_spared, service->mappings_spared_count, directory))
		mounts_idmap_remove(directory);
	(void)pthread_mutex_unlock(&service->mapping_lock);
}

static int clean(Service *service, Error *error)
{
	MetaMapping *mappings;
	size_t count;
	int r = meta_mappings(service->meta, &mappings, &count, error);
	if (r < 0)
		return r;
	Wanted wanted = { .service = service, .count = 2 * count };
	wanted.directories = calloc(wanted.count + 1, sizeof(*wanted.directories));
	bool lacks = !wanted.directories;
	for (size_t i = 0; !lacks && i < count; i++)
		lacks = mapping_directories(service, &mappings[i], &wanted.directories[2 * i]) < 0;
	r = lacks ? error_set(error, -ENOMEM, "out of memory")
		  : mounts_idmap_each(service->mounts, clean_directory, &wanted, error);
	for (size_t i = 0; wanted.directories && i < wanted.count; i++)
		free(wanted.directories[i]);
	free(wanted.directories);
	meta_mappings_free(mappings, count);
	return r;
}

int service_clean_mappings(Service *service, Error *error)
{
	(void)pthread_mutex_lock(&service->mapping_lock);
	service->mappings_cleaners++;
	(void)pthread_mutex_unlock(&service->mapping_lock);
	int r = clean(service, error);
	(void)pthread_mutex_lock(&service->mapping_lock);
	if (--service->mappings_cleaners == 0) {
		while (service->mappings_spared_count > 0)
			free(service->mappings_spared[--service->mappings_spared_count]);
		free(TAKE_PTR(service->mappings_spared));
	}
	(void)pthread_mutex_unlock(&service->mapping_lock);
	return r;
}
