#include "fs/mount/mount-sources.h"

#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/base/log.h"
#include "fs/cache/cache-index.h"
#include "fs/fetch/fetch-fill.h"

struct MountSource {
	MountSource *next;
	MountSources *sources;
	unsigned references; /* of images and of layers */
	char *access;        /* or NULL */
	uint32_t login;      /* serial of the newest login that is known; the Fetcher's thread's */
	Fetcher *fetcher;
	MountLayer *layers;
};

typedef struct FillLimit {
	struct FillLimit *next;
	uint64_t rate;
} FillLimit;

struct MountSources {
	FetchMetrics *metrics;
	LoginBoxes *logins;   /* NULL: nobody has newer ones */
	pthread_mutex_t lock; /* of all below, of the lists and the counts */
	MountSource *first;
	FetchFill *fill; /* NULL: there was nothing to fill yet */
	FillLimit *limits;
};

static void report(_unused_ void *arg, const char *sentence)
{
	log_warning("%s", sentence);
}

int mount_sources_new(FetchMetrics *metrics, LoginBoxes *logins, MountSources **ret_sources)
{
	MountSources *sources = calloc(1, sizeof(*sources));
	if (!sources)
		return -ENOMEM;
	sources->metrics = metrics;
	sources->logins = logins;
	(void)pthread_mutex_init(&sources->lock, NULL);
	*ret_sources = sources;
	return 0;
}

/* Each is held until mount_sources_free(): whoever lets one go meanwhile must not end it at the same time. */
void mount_sources_stop(MountSources *sources)
{
	(void)pthread_mutex_lock(&sources->lock);
	for (MountSource *source = sources->first; source; source = source->next)
		source->references++;
	(void)pthread_mutex_unlock(&sources->lock);
	for (MountSource *source = sources->first; source; source = source->next)
		fetcher_stop(source->fetcher);
}

/* With the lock. */
static uint64_t fill_rate(const MountSources *sources)
{
	uint64_t rate = 0;
	for (const FillLimit *limit = sources->limits; limit; limit = limit->next)
		if (rate == 0 || limit->rate < rate)
			rate = limit->rate;
	return rate;
}

/* With the lock. */
static void use_limits(MountSources *sources)
{
	if (sources->fill)
		fetch_fill_set_rate(sources->fill, fill_rate(sources));
}

int mount_sources_limit_fill(MountSources *sources, uint64_t rate)
{
	FillLimit *limit = rate > 0 ? malloc(sizeof(*limit)) : NULL;
	if (rate > 0 && !limit)
		return -ENOMEM;
	if (!limit)
		return 0;
	(void)pthread_mutex_lock(&sources->lock);
	*limit = (FillLimit){ .next = sources->limits, .rate = rate };
	sources->limits = limit;
	use_limits(sources);
	(void)pthread_mutex_unlock(&sources->lock);
	return 0;
}

void mount_sources_unlimit_fill(MountSources *sources, uint64_t rate)
{
	(void)pthread_mutex_lock(&sources->lock);
	FillLimit **at = &sources->limits;
	while (*at && (*at)->rate != rate)
		at = &(*at)->next;
	FillLimit *limit = *at;
	if (limit)
		*at = limit->next;
	use_limits(sources);
	(void)pthread_mutex_unlock(&sources->lock);
	free(limit);
}

static void report_fill(_unused_ void *arg, bool failed, const char *sentence)
{
	if (failed)
		log_warning("%s", sentence);
	else
		log_info("%s", sentence);
}

/* Is it where the fill makes a copy? A copy that was emptied is open for reading alone. */
static bool is_place(int fd)
{
	int flags = fcntl(fd, F_GETFL);
	return flags >= 0 && (flags & O_ACCMODE) == O_RDWR && cache_decoded_is_place(fd);
}

/* Whoever cannot be filled can be read all the same. */
static void start_fill(MountLayer *layer, MountPlanLayer *plan, const Digest *diff_id)
{
	MountSources *sources = layer->source->sources;
	if (plan->seal_fd < 0 || !plan->url)
		return;
	(void)pthread_mutex_lock(&sources->lock);
	FetchFillOptions options = { .rate = fill_rate(sources), .report = report_fill };
	int r = sources->fill ? 0 : fetch_fill_new(&options, &sources->fill);
	if (r == 0)
		r = fetch_fill_add(sources->fill, layer->blob, diff_id, TAKE_FD(plan->seal_fd),
				   plan->decoded_fd >= 0 && is_place(plan->decoded_fd) ? TAKE_FD(plan->decoded_fd)
										       : -1);
	(void)pthread_mutex_unlock(&sources->lock);
	if (r < 0)
		log_warning("a layer is not filled reason=\"%s\"", strerror(-r));
}

static bool same_text(const char *left, const char *right)
{
	return left && right ? strcmp(left, right) == 0 : left == right;
}

static MountSource *source_free(MountSource *source)
{
	if (source) {
		(void)fetcher_free(source->fetcher);
		free(source->access);
		free(source);
	}
	return NULL;
}
DEFINE_CLEANUP(MountSource, source_free);

MountSources *mount_sources_free(MountSources *sources)
{
	if (!sources)
		return NULL;
	(void)fetch_fill_free(sources->fill); /* before the blobs that it fills */
	while (sources->first) {
		MountSource *source = sources->first;
		sources->first = source->next;
		(void)source_free(source);
	}
	(void)pthread_mutex_destroy(&sources->lock);
	free(sources);
	return NULL;
}

/* A login was refused: has the manager left a newer one? Otherwise it learns that one is wanted. */
static char *renew(void *arg)
{
	MountSource *source = arg;
	LoginBoxes *logins = source->sources->logins;
	char *now = NULL;
	if (!logins || !source->access)
		return NULL;
	int r = login_box_read(logins, source->access, &source->login, &now);
	if (r == -ENOENT)
		(void)atomic_fetch_add(&logins->box.refused, 1);
	return r == 0 ? now : NULL;
}

static int source_new(MountSources *sources, const char *access, MountSource **ret_source)
{
	_cleanup_(source_free_p) MountSource *source = calloc(1, sizeof(*source));
	if (!source)
		return -ENOMEM;
	source->sources = sources;
	source->references = 1;
	source->access = access ? strdup(access) : NULL;
	if (access && !source->access)
		return -ENOMEM;
	FetcherOptions options = {
		.report = report,
		.access = access,
		.metrics = sources->metrics,
		.renew = renew,
		.renew_arg = source,
	};
	int r = fetcher_new(&options, &source->fetcher);
	if (r == 0)
		r = fetcher_start(source->fetcher);
	if (r < 0)
		return r;
	*ret_source = TAKE_PTR(source);
	return 0;
}

/* Under the lock. */
static MountSource *find_source(MountSources *sources, const char *access)
{
	for (MountSource *source = sources->first; source; source = source->next) {
		if (same_text(source->access, access)) {
			source->references++;
			return source;
		}
	}
	return NULL;
}

int mount_source_get(MountSources *sources, const char *access, MountSource **ret_source)
{
	_cleanup_(source_free_p) MountSource *made = NULL;
	(void)pthread_mutex_lock(&sources->lock);
	MountSource *source = find_source(sources, access);
	(void)pthread_mutex_unlock(&sources->lock);
	if (!source) {
		int r = source_new(sources, access, &made);
		if (r < 0)
			return r;
		(void)pthread_mutex_lock(&sources->lock);
		source = find_source(sources, access); /* somebody may have been faster */
		if (!source) {
			made->next = sources->first;
			sources->first = made;
			source = TAKE_PTR(made);
		}
		(void)pthread_mutex_unlock(&sources->lock);
	}
	*ret_source = source;
	return 0;
}

void mount_source_put(MountSource *source)
{
	if (!source)
		return;
	MountSources *sources = source->sources;
	(void)pthread_mutex_lock(&sources->lock);
	bool last = --source->references == 0;
	if (last) {
		MountSource **link = &sources->first;
		while (*link != source)
			link = &(*link)->next;
		*link = source->next;
	}
	(void)pthread_mutex_unlock(&sources->lock);
	if (last)
		(void)source_free(source);
}

Fetcher *mount_source_fetcher(const MountSource *source)
{
	return source->fetcher;
}

/* Of the index only the chunk table is used, whose sections are the first; the rest would be a second copy of the view. */
static int open_index(MountLayer *layer, int index_fd, const Digest *diff_id, Error *error)
{
	Image index;
	int r = cache_index_load(index_fd, &layer->map, &index, error);
	if (r < 0)
		return r;
	if (index.header.kind != FORMAT_KIND_INDEX || !digest_equal(&index.header.id, diff_id))
		return error_set(error, -EBADMSG, "the index is of another layer than the view's");
	r = chunk_table_open(&index, &layer->chunks, error);
	if (r < 0)
		return r;
	const ImageSection *last = &index.sections[FORMAT_SECTION_CHUNK_DIGESTS];
	fd_shrink(&layer->map, (size_t)(last->data + last->size - layer->map.data));
	r = fd_load_end(&layer->map);
	return r < 0 ? error_set(error, r, "cannot protect the index: %s", strerror(-r)) : 0;
}

static int identify(MountLayer *layer, const MountPlanLayer *plan)
{
	struct stat st;
	if (fstat(plan->data_fd, &st) < 0)
		return -errno;
	layer->device = st.st_dev;
	layer->file = st.st_ino;
	layer->writable = plan->present_fd >= 0;
	layer->url = plan->url ? strdup(plan->url) : NULL;
	return plan->url && !layer->url ? -ENOMEM : 0;
}

/* A copy that is not whole and sound is done without: the blob has all that it has. */
static void open_decoded(MountLayer *layer, int fd, const Digest *diff_id)
{
	CacheDecoded *copy;
	char text[DIGEST_TEXT_SIZE];
	int r = cache_decoded_open(fd, diff_id, layer->chunks.tar_size, &copy);
	if (r == 0)
		fetch_blob_set_decoded(layer->blob, copy);
	else
		log_warning("a decoded copy is not used: imgfs pull --decoded makes it anew layer=%s reason=\"%s\"",
			    digest_text(diff_id, text), r == -EBADMSG ? "it is damaged" : strerror(-r));
}

static int open_blob(MountLayer *layer, MountPlanLayer *plan, const Digest *diff_id, FetchDonors *donors)
{
	CacheBlob *cache;
	int r = cache_blob_new(&layer->chunks, TAKE_FD(plan->data_fd), TAKE_FD(plan->present_fd), &cache);
	if (r < 0)
		return r;
	r = fetcher_add_blob(layer->source->fetcher, cache, plan->url, &layer->blob);
	if (r == 0 && plan->twins_fd >= 0)
		r = fetch_blob_set_twins(layer->blob, donors, plan->twins_fd);
	if (r == 0 && plan->decoded_fd >= 0 && !is_place(plan->decoded_fd))
		open_decoded(layer, TAKE_FD(plan->decoded_fd), diff_id);
	return r;
}

/* The fill has done with it. By whichever thread. */
static void layer_gone(void *arg)
{
	MountLayer *layer = arg;
	MountSource *source = layer->listed ? layer->source : NULL;
	if (layer->blob)
		fetcher_remove_blob(layer->blob); /* before the table that it uses */
	fd_unmap(&layer->map);
	free(layer->url);
	free(layer);
	mount_source_put(source);
}

/* Does not wait for the fill, which may be waiting for the disk: so that other images can come and go meanwhile. */
static MountLayer *layer_free(MountLayer *layer)
{
	if (!layer)
		return NULL;
	MountSources *sources = layer->source->sources;
	(void)pthread_mutex_lock(&sources->lock);
	FetchFill *fill = layer->blob ? sources->fill : NULL; /* stays for as long as there are layers */
	(void)pthread_mutex_unlock(&sources->lock);
	if (fill)
		fetch_fill_remove(fill, layer->blob, layer_gone, layer);
	else
		layer_gone(layer);
	return NULL;
}
DEFINE_CLEANUP(MountLayer, layer_free);

/* The same bytes of the same file. Two indexes may claim the same blob: whose chunks are others shares nothing. */
static bool same_layer(const MountLayer *left, const MountLayer *right)
{
	const ChunkTable *a = &left->chunks, *b = &right->chunks;
	return left->device == right->device && left->file == right->file && left->writable == right->writable &&
	       same_text(left->url, right->url) && left->map.size == right->map.size && a->count == b->count &&
	       memcmp(left->map.data, right->map.data, left->map.size) == 0;
}

/* Under the lock of the sources. */
static MountLayer *find_layer(const MountSource *source, const MountLayer *like)
{
	for (MountLayer *layer = source->layers; layer; layer = layer->next) {
		if (same_layer(layer, like)) {
			layer->references++;
			return layer;
		}
	}
	return NULL;
}

static int get_layer(MountSource *source, MountPlanLayer *plan, const Digest *diff_id, FetchDonors *donors,
		     MountLayer *made, MountLayer **ret_layer)
{
	pthread_mutex_t *lock = &source->sources->lock;
	(void)pthread_mutex_lock(lock);
	MountLayer *layer = find_layer(source, made);
	(void)pthread_mutex_unlock(lock);
	if (layer) {
		*ret_layer = layer;
		return 0;
	}
	int r = open_blob(made, plan, diff_id, donors);
	if (r < 0)
		return r;
	(void)pthread_mutex_lock(lock);
	layer = find_layer(source, made); /* somebody may have been faster */
	if (!layer) {
		layer = made;
		layer->next = source->layers;
		source->layers = layer;
		source->references++;
		layer->listed = true;
	}
	(void)pthread_mutex_unlock(lock);
	*ret_layer = layer;
	return 0;
}

static void close_plan(MountPlanLayer *plan)
{
	int *const fds[] = { &plan->index_fd,   &plan->data_fd, &plan->present_fd,
			     &plan->decoded_fd, &plan->seal_fd, &plan->twins_fd };
	for (size_t i = 0; i < ELEMENTS(fds); i++) {
		close_p(fds[i]);
		*fds[i] = -1;
	}
}

int mount_layer_get(MountSource *source, MountPlanLayer *plan, const Digest *diff_id, FetchDonors *donors,
		    MountLayer **ret_layer, Error *error)
{
	_cleanup_(layer_free_p) MountLayer *made = calloc(1, sizeof(*made));
	_cleanup_(close_plan) MountPlanLayer owned = *plan;
	plan->index_fd = plan->data_fd = plan->present_fd = plan->decoded_fd = plan->seal_fd = plan->twins_fd = -1;
	if (!made)
		return error_set(error, -ENOMEM, "out of memory");
	made->source = source;
	made->references = 1;
	int r = open_index(made, owned.index_fd, diff_id, error);
	/* Whatever is wrong with an index that was sound when the image was mounted, but for memory that lacks. */
	if (r < 0)
		return r == -ENOMEM ? r : -EUCLEAN;
	r = identify(made, &owned);
	if (r == 0)
		r = get_layer(source, &owned, diff_id, donors, made, ret_layer);
	if (r < 0)
		return error_set(error, r, "cannot use the blob: %s", strerror(-r));
	start_fill(*ret_layer, &owned, diff_id);
	if (*ret_layer == made)
		made = NULL;
	return 0;
}

void mount_layer_put(MountLayer *layer)
{
	MountSource *source = layer->source;
	pthread_mutex_t *lock = &source->sources->lock;
	(void)pthread_mutex_lock(lock);
	bool last = --layer->references == 0;
	if (last) {
		MountLayer **link = &source->layers;
		while (*link != layer)
			link = &(*link)->next;
		*link = layer->next;
	}
	(void)pthread_mutex_unlock(lock);
	if (last)
		(void)layer_free(layer);
}
