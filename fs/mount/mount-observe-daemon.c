/* The images of the node daemon, by the records that its keeper holds: each says what it is of. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/base/fd.h"
#include "fs/mount/mount-observe-private.h"

/* What is looked for in one keeper. */
typedef struct Search {
	const KeeperProcess *keeper;
	bool measure;
	MountsObserved *observed;
} Search;

static int open_number(pid_t keeper, int number, int *ret_fd)
{
	const MountObserved holder = { .holder = keeper };
	return mount_observed_open(&holder, number, ret_fd);
}

static int cut_link(void *arg, _unused_ int number, const char *link)
{
	(void)snprintf(arg, PATH_MAX, "%s", link);
	return 1;
}

/* The cache that the image's view is in, by the path of the view that the keeper has open. */
static bool find_cache(const MountObserved *observed, const char *chain_id, char ret_path[static PATH_MAX])
{
	char end[DIGEST_HEX_SIZE + 16];
	int length = snprintf(end, sizeof(end), "/views/%s", chain_id);
	ret_path[0] = '\0';
	if (mount_observe_descriptors(observed->keeper, "/", end, cut_link, ret_path) != 1)
		return false;
	ret_path[strlen(ret_path) - (size_t)length] = '\0';
	return true;
}

static int read_manifest(CacheStore *cache, const Digest *digest, Manifest *ret_manifest)
{
	_cleanup_close_ int fd = -1;
	struct stat status;
	int r = cache_store_get(cache, CACHE_MANIFEST, digest, &fd);
	if (r < 0)
		return r;
	if (fstat(fd, &status) < 0 || status.st_size > (off_t)MANIFEST_SIZE_MAX)
		return -EBADMSG;
	_cleanup_free_ char *json = malloc((size_t)status.st_size + 1);
	if (!json)
		return -ENOMEM;
	r = fd_pread_all(fd, json, (size_t)status.st_size, 0);
	return r < 0 ? r : manifest_parse(json, (size_t)status.st_size, ret_manifest, NULL);
}

static int open_layers(CacheStore *cache, const Manifest *manifest, MountPlan *plan)
{
	plan->layers = calloc(manifest->layer_count + 1, sizeof(*plan->layers));
	if (!plan->layers)
		return -ENOMEM;
	for (; plan->layer_count < manifest->layer_count; plan->layer_count++) {
		const ManifestLayer *from = &manifest->layers[plan->layer_count];
		MountPlanLayer *to = &plan->layers[plan->layer_count];
		*to = (MountPlanLayer){
			.index_fd = -1, .data_fd = -1, .present_fd = -1, .decoded_fd = -1, .twins_fd = -1
		};
		int r = cache_store_get(cache, CACHE_INDEX, &from->index, &to->index_fd);
		if (r == 0)
			r = cache_store_blob_get(cache, &from->blob, &to->data_fd, &to->present_fd);
		if (r < 0) {
			close_p(&to->index_fd);
			return r;
		}
	}
	return 0;
}

/* The files are the cache's, opened by this process: the keeper's own cannot be told apart. */
static int open_files(MountObserved *observed, const char *path, const char *chain_id)
{
	_cleanup_(cache_store_free_p) CacheStore *cache = NULL;
	_cleanup_(manifest_done) Manifest manifest = { 0 };
	Digest chain;
	int r = cache_store_open(path, &cache, NULL);
	if (r == 0)
		r = read_manifest(cache, &observed->record->label.manifest, &manifest);
	if (r == 0)
		r = digest_from_hex(chain_id, &chain);
	if (r == 0)
		r = cache_store_get(cache, CACHE_VIEW, &chain, &observed->plan.view_fd);
	return r < 0 ? r : open_layers(cache, &manifest, &observed->plan);
}

/* An image without its files is still one whose reads are known. */
static int find_files(MountObserved *observed)
{
	char path[PATH_MAX];
	const char *slash = strchr(observed->record->label.place, '/');
	const char *chain_id = slash ? slash + 1 : "";
	if (!find_cache(observed, chain_id, path))
		return 0;
	int r = open_files(observed, path, chain_id);
	if (r < 0) {
		mount_plan_close(&observed->plan);
		free(observed->plan.layers);
		observed->plan.layers = NULL;
		observed->plan.layer_count = 0;
	}
	return r == -ENOMEM ? r : 0;
}

static char *text_of(const Digest *digest)
{
	char text[DIGEST_TEXT_SIZE];
	return digest_equal(digest, &(Digest){ 0 }) ? NULL : strdup(digest_text(digest, text));
}

static int describe(const Search *search, MountObserved *observed)
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
	int r = find_files(observed);
	return r == 0 && search->measure ? mount_observe_measure(observed) : r;
}

static int add_record(void *arg, int number, _unused_ const char *link)
{
	const Search *search = arg;
	_cleanup_close_ int fd = -1;
	MountObserved item = {
		.keeper = search->keeper->pid,
		.holder = getpid(),
		.daemon = true,
		.plan = MOUNT_PLAN_NULL,
	};
	if (open_number(search->keeper->pid, number, &fd) < 0 || start_record_load(fd, &item.record) < 0)
		return 0; /* detached meanwhile, or of another version */
	int r = describe(search, &item);
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
	if (open_number(search->keeper->pid, number, &fd) < 0 || server_metrics_load(fd, &metrics) < 0)
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
