#include "snapshotter/service.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "fs/base/log.h"
#include "snapshotter/service-private.h"

const WireMethod service_methods[] = {
	{ SERVICE_PATH "Prepare", service_prepare }, { SERVICE_PATH "View", service_view },
	{ SERVICE_PATH "Mounts", service_mounts },   { SERVICE_PATH "Commit", service_commit },
	{ SERVICE_PATH "Remove", service_remove },   { SERVICE_PATH "Stat", service_stat },
	{ SERVICE_PATH "Update", service_update },   { SERVICE_PATH "List", service_list },
	{ SERVICE_PATH "Usage", service_usage },     { SERVICE_PATH "Cleanup", service_cleanup },
};
const size_t service_method_count = ELEMENTS(service_methods);

int64_t service_now(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int service_id_begin(Service *service, uint64_t *ret_id, Error *error)
{
	(void)pthread_mutex_lock(&service->lock);
	uint64_t *larger = reallocarray(service->beginning, service->beginning_count + 1, sizeof(*larger));
	if (larger) {
		service->beginning = larger;
		*ret_id = service->next_id++;
		larger[service->beginning_count++] = *ret_id;
	}
	(void)pthread_mutex_unlock(&service->lock);
	return larger ? 0 : error_set(error, -ENOMEM, "out of memory");
}

void service_id_end(Service *service, uint64_t id)
{
	(void)pthread_mutex_lock(&service->lock);
	for (size_t i = 0; i < service->beginning_count; i++) {
		if (service->beginning[i] == id) {
			service->beginning[i] = service->beginning[--service->beginning_count];
			break;
		}
	}
	(void)pthread_mutex_unlock(&service->lock);
}

static int compare_ids(const void *left, const void *right)
{
	const uint64_t *a = left, *b = right;
	return (*a > *b) - (*a < *b);
}

bool service_has_id(const uint64_t *ids, size_t count, uint64_t id)
{
	return count > 0 && bsearch(&id, ids, count, sizeof(*ids), compare_ids);
}

int service_ids_spared(Service *service, uint64_t above, uint64_t *ret_next, uint64_t **ret_ids, size_t *ret_count,
		       Error *error)
{
	(void)pthread_mutex_lock(&service->lock);
	if (service->next_id <= above)
		service->next_id = above + 1;
	size_t count = service->beginning_count;
	uint64_t *ids = calloc(count ? count : 1, sizeof(*ids));
	if (ids && count > 0)
		memcpy(ids, service->beginning, count * sizeof(*ids));
	*ret_next = service->next_id;
	(void)pthread_mutex_unlock(&service->lock);
	if (!ids)
		return error_set(error, -ENOMEM, "out of memory");
	if (count > 0)
		qsort(ids, count, sizeof(*ids), compare_ids);
	*ret_ids = ids;
	*ret_count = count;
	return 0;
}

/*
 * In this order: ids that begin, then directories, then rows. So a directory without a row whose id is below `next` and is not beginning
 * belongs to a call that failed, or to a snapshot that was removed.
 */
int service_reconcile(Service *service, const atomic_bool *cancelled, size_t *ret_count, Error *error)
{
	_cleanup_free_ uint64_t *spared = NULL, *directories = NULL, *rows = NULL;
	size_t spared_count, directory_count, row_count, removed = 0;
	uint64_t next;
	int r = service_ids_spared(service, 0, &next, &spared, &spared_count, error);
	if (r == 0)
		r = mounts_ids(service->mounts, &directories, &directory_count, error);
	if (r == 0)
		r = meta_ids(service->meta, &rows, &row_count, error);
	if (r < 0)
		return r;
	for (size_t i = 0; i < directory_count; i++) {
		uint64_t id = directories[i];
		if (id >= next || service_has_id(spared, spared_count, id) || service_has_id(rows, row_count, id))
			continue;
		int removal = mounts_remove(service->mounts, id, r == 0 ? error : NULL);
		removed += removal == 0;
		r = r < 0 ? r : removal;
	}
	int mappings = service_clean_mappings(service, r == 0 ? error : NULL);
	r = r < 0 ? r : mappings;
	if (service->lazy) {
		int lazy = service_lazy_reconcile(service, cancelled, r == 0 ? error : NULL);
		r = r < 0 ? r : lazy;
	}
	if (r == 0)
		*ret_count = removed;
	return r;
}

/* At the start nothing else runs, so what has no directory, and is not lazy, has lost it. */
static int note_lost(const Service *service, const uint64_t *directories, size_t directory_count, Error *error)
{
	_cleanup_free_ uint64_t *rows = NULL;
	size_t row_count;
	int r = meta_directory_ids(service->meta, &rows, &row_count, error);
	if (r < 0)
		return r;
	for (size_t i = 0; i < row_count; i++)
		if (!service_has_id(directories, directory_count, rows[i]))
			log_error("the directory of a snapshot is lost id=%" PRIu64, rows[i]);
	return 0;
}

static int choose_first_id(Service *service, Error *error)
{
	_cleanup_free_ uint64_t *directories = NULL;
	size_t count;
	uint64_t last;
	int r = meta_last_id(service->meta, &last, error);
	if (r == 0)
		r = mounts_ids(service->mounts, &directories, &count, error);
	if (r < 0)
		return r;
	if (count > 0)
		qsort(directories, count, sizeof(*directories), compare_ids);
	if (count > 0 && directories[count - 1] > last)
		last = directories[count - 1];
	service->next_id = last + 1;
	service_write_metrics(service);
	return note_lost(service, directories, count, error);
}

int service_new(const ServiceOptions *options, Service **ret_service, Error *error)
{
	_cleanup_(service_free_p) Service *service = calloc(1, sizeof(*service));
	if (!service)
		return error_set(error, -ENOMEM, "out of memory");
	service->meta = options->meta;
	service->mounts = options->mounts;
	service->lazy = options->lazy;
	service->metrics = options->metrics;
	service->whole_file = options->whole;
	(void)pthread_mutex_init(&service->lock, NULL);
	(void)pthread_mutex_init(&service->mapping_lock, NULL);
	(void)pthread_mutex_init(&service->whole_lock, NULL);
	(void)pthread_mutex_init(&service->metrics_lock, NULL);
	service_whole_load(service);
	int r = choose_first_id(service, error);
	if (r < 0)
		return r;
	*ret_service = TAKE_PTR(service);
	return 0;
}

Service *service_free(Service *service)
{
	if (!service)
		return NULL;
	(void)pthread_mutex_destroy(&service->lock);
	(void)pthread_mutex_destroy(&service->mapping_lock);
	(void)pthread_mutex_destroy(&service->whole_lock);
	(void)pthread_mutex_destroy(&service->metrics_lock);
	json_decref(service->whole);
	free(service->beginning);
	free(service);
	return NULL;
}
