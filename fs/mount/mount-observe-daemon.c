/* The images of the node daemon, by the records that its keeper holds: each says what it is of. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>

#include "fs/base/fd.h"
#include "fs/cache/cache-seal.h"
#include "fs/mount/mount-observe-private.h"

/* What is looked for in one keeper. */
typedef struct Search {
	const KeeperProcess *keeper;
	bool measure;
	MountsObserved *observed;
} Search;

static int cut_link(void *arg, _unused_ int number, const char *link)
{
	(void)snprintf(arg, PATH_MAX, "%s", link);
	return 1;
}

/* The cache that the image's view is in, by the path of the view that the keeper has open. */
static bool find_cache(const MountObserved *observed, const char *chain_id, char ret_path[static PATH_MAX])
{
	char end[DIGEST_HEX_SIZE + 16];
	Digest chain;
	if (digest_from_hex(chain_id, &chain) < 0) /* as long as any */
		return false;
	int length = snprintf(end, sizeof(end), "/views/%s", chain_id);
	ret_path[0] = '\0';
	if (mount_observe_descriptors(observed->keeper, "/", end, cut_link, ret_path) != 1)
		return false;
	ret_path[strlen(ret_path) - (size_t)length] = '\0';
	return true;
}

static bool is_local(const StartRecordLayer *layer)
{
	return digest_equal(&layer->blob, &(Digest){ 0 });
}

static int open_layers(CacheStore *cache, const StartRecordLayer *layers, size_t count, MountPlan *plan)
{
	plan->layers = calloc(count + 1, sizeof(*plan->layers));
	if (!plan->layers)
		return -ENOMEM;
	for (; plan->layer_count < count; plan->layer_count++) {
		const StartRecordLayer *from = &layers[plan->layer_count];
		MountPlanLayer *to = &plan->layers[plan->layer_count];
		*to = (MountPlanLayer){
			.index_fd = -1, .data_fd = -1, .present_fd = -1, .decoded_fd = -1, .seal_fd = -1, .twins_fd = -1
		};
		int r = cache_store_get(cache, CACHE_INDEX, &from->index, &to->index_fd);
		if (r == 0 && !is_local(from))
			r = cache_store_blob_get(cache, &from->blob, &to->data_fd, &to->present_fd);
		if (r < 0) {
			close_p(&to->index_fd);
			return r;
		}
	}
	return 0;
}

/* Of a chain of layers without a manifest, which has no seal of its own. */
static bool has_seals(CacheStore *cache, const StartRecordLayer *layers, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		_cleanup_close_ int fd = -1;
		if (is_local(&layers[i]) || cache_seal_get(cache, &layers[i].blob, &fd) < 0 ||
		    !cache_seal_is_valid(fd, &layers[i].diff_id))
			return false;
	}
	return count > 0;
}

/* The files are the cache's, opened by this process: the keeper's own cannot be told apart. */
static int open_files(MountObserved *observed, CacheStore *cache, const char *chain_id, const StartRecordLayer *layers,
		      size_t count)
{
	Digest chain;
	int r = digest_from_hex(chain_id, &chain);
	if (r == 0)
		r = cache_store_get(cache, CACHE_VIEW, &chain, &observed->plan.view_fd);
	return r < 0 ? r : open_layers(cache, layers, count, &observed->plan);
}

static int measure(MountObserved *observed, CacheStore *cache, const StartRecordLayer *layers, size_t count)
{
	int r = mount_observe_measure(observed);
	if (r == 0 && !observed->plan.manifest)
		observed->sealed =
			observed->measured && observed->present == observed->needed && has_seals(cache, layers, count);
	return r;
}

/* An image without its files is still one whose reads are known. */
static int look_into_cache(const Search *search, MountObserved *observed, const StartRecordLayer *layers, size_t count)
{
	_cleanup_(cache_store_free_p) CacheStore *cache = NULL;
	char path[PATH_MAX];
	const char *slash = strchr(observed->record->label.place, '/');
	const char *chain_id = slash ? slash + 1 : "";
	if (!find_cache(observed, chain_id, path) || cache_store_open(path, false, &cache, NULL) < 0)
		return 0;
	int r = open_files(observed, cache, chain_id, layers, count);
	if (r == 0)
		return search->measure ? measure(observed, cache, layers, count) : 0;
	mount_plan_close(&observed->plan);
	free(observed->plan.layers);
	observed->plan.layers = NULL;
	observed->plan.layer_count = 0;
	return r == -ENOMEM ? r : 0;
}

static char *text_of(const Digest *digest)
{
	char text[DIGEST_TEXT_SIZE];
	return digest_equal(digest, &(Digest){ 0 }) ? NULL : strdup(digest_text(digest, text));
}

static int describe(const Search *search, MountObserved *observed, const StartRecordLayer *layers, size_t count)
{
	const StartRecordLabel *label = &observed->record->label;
	observed->reference = mount_observe_reference(label->source);
	observed->plan.source = strdup(label->source);
	observed->plan.manifest = text_of(&label->manifest);
	observed->plan.config = text_of(&label->config);
	if (asprintf(&observed->directory, "%s/%s", search->keeper->directory, label->place) < 0)
		observed->directory = NULL;
	if (!observed->reference || !observed->plan.source || !observed->directory)
		return -ENOMEM;
	return look_into_cache(search, observed, layers, count);
}

static int add_record(void *arg, int number, _unused_ const char *link)
{
	const Search *search = arg;
	_cleanup_close_ int fd = -1;
	MountObserved item = {
		.keeper = search->keeper->pid,
		.owner = search->keeper->owner,
		.holder = getpid(),
		.daemon = true,
		.plan = MOUNT_PLAN_NULL,
	};
	_cleanup_free_ StartRecordLayer *layers = NULL;
	size_t count = 0;
	if (mount_observe_memory(search->keeper->pid, number, &fd) < 0 || start_record_load(fd, &item.record) < 0)
		return 0; /* detached meanwhile, or of another version */
	int r = start_record_layers(fd, &layers, &count);
	if (r == 0)
		r = describe(search, &item, layers, count);
	if (r == 0)
		r = mount_observe_add(search->observed, &item);
	if (r < 0)
		mount_observed_done(&item);
	return r == -ENOMEM ? r : 0;
}

static int add_metrics(void *arg, int number, _unused_ const char *link)
{
	const Search *search = arg;
	MountsObserved *observed = search->observed;
	_cleanup_close_ int fd = -1;
	ServerMetrics *metrics;
	if (mount_observe_memory(search->keeper->pid, number, &fd) < 0 || server_metrics_load(fd, &metrics) < 0)
		return 0;
	char *directory = strdup(search->keeper->directory);
	DaemonObserved *larger = reallocarray(observed->daemons, observed->daemon_count + 1, sizeof(*larger));
	if (larger)
		observed->daemons = larger;
	if (!larger || !directory) {
		free(directory);
		free(metrics);
		return -ENOMEM;
	}
	observed->daemons[observed->daemon_count++] =
		(DaemonObserved){ .keeper = search->keeper->pid, .directory = directory, .metrics = metrics };
	return 1;
}

int mount_observe_daemon(const KeeperProcess *keeper, bool measure, MountsObserved *observed)
{
	Search search = { .keeper = keeper, .measure = measure, .observed = observed };
	int r = mount_observe_descriptors(keeper->pid, "/memfd:" SERVER_METRICS_NAME " ", "(deleted)", add_metrics,
					  &search);
	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	return mount_observe_descriptors(keeper->pid, "/memfd:" START_RECORD_NAME " ", "(deleted)", add_record,
					 &search);
}
