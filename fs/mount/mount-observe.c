#include "fs/mount/mount-observe.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#include "fs/base/fd.h"
#include "fs/cache/cache-blob.h"
#include "fs/fetch/fetch-seal.h"
#include "fs/format/chunk-table.h"
#include "fs/mount/mount-observe-private.h"
#include "fs/mount/mount-table.h"
#include "fs/mount/proc-file.h"

#define PLAN_MAX     (16u << 20)
#define APART_MS     3000 /* to measure what one keeper of another user has */
#define APART_ALL_MS 10000
#define APART_NAME   "imgfs-measure"
#define STATUS_MAX   65536u

void mount_observed_done(MountObserved *observed)
{
	free(observed->directory);
	free(observed->reference);
	free(observed->record);
	free(observed->metrics);
	if (observed->daemon)
		mount_plan_close(&observed->plan);
	mount_plan_done(&observed->plan);
	*observed = (MountObserved){ .plan = MOUNT_PLAN_NULL };
}

void mounts_observed_done(MountsObserved *observed)
{
	for (size_t i = 0; i < observed->count; i++)
		mount_observed_done(&observed->items[i]);
	for (size_t i = 0; i < observed->daemon_count; i++) {
		free(observed->daemons[i].directory);
		free(observed->daemons[i].metrics);
	}
	free(observed->daemons);
	free(observed->items);
	free(observed->refused);
	*observed = (MountsObserved){ 0 };
}

int mount_observed_open(const MountObserved *observed, int number, int *ret_fd)
{
	char path[64];
	(void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", observed->holder, number);
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

/* Which device memory that processes share is on; it needs none of it. */
static int memory_device(dev_t *ret_device)
{
	_cleanup_close_ int fd = memfd_create("imgfs", MFD_CLOEXEC);
	struct stat status;
	if (fd < 0 || fstat(fd, &status) < 0)
		return -errno;
	*ret_device = status.st_dev;
	return 0;
}

int mount_observe_memory(pid_t keeper, int number, int *ret_fd)
{
	char path[64];
	struct statx status;
	dev_t device = 0;
	(void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", keeper, number);
	/* Neither of these asks whoever has the file. */
	_cleanup_close_ int found = open(path, O_PATH | O_CLOEXEC);
	if (found < 0 || statx(found, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &status) < 0)
		return -errno;
	int r = memory_device(&device);
	if (r < 0)
		return r;
	if (makedev(status.stx_dev_major, status.stx_dev_minor) != device)
		return -EBADMSG;
	return mount_observed_open(&(MountObserved){ .holder = getpid() }, found, ret_fd);
}

int mount_observe_descriptors(pid_t keeper, const char *begin, const char *end, MountDescriptor *each, void *arg)
{
	char path[64], link[PATH_MAX];
	(void)snprintf(path, sizeof(path), "/proc/%d/fd", keeper);
	_cleanup_closedir_ DIR *directory = opendir(path);
	if (!directory)
		return -errno;
	for (struct dirent *entry; (entry = readdir(directory));) {
		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		ssize_t length = readlinkat(dirfd(directory), entry->d_name, link, sizeof(link) - 1);
		if (length < 0 && errno == EACCES)
			return -EACCES;
		if (length < (ssize_t)(strlen(begin) + strlen(end)))
			continue;
		link[length] = '\0';
		if (strncmp(link, begin, strlen(begin)) != 0 || strcmp(link + (size_t)length - strlen(end), end) != 0)
			continue;
		int r = each(arg, atoi(entry->d_name), link);
		if (r != 0)
			return r;
	}
	return 0;
}

static int found_memory(void *arg, int number, _unused_ const char *link)
{
	*(int *)arg = number;
	return 1;
}

/* The number of the keeper's descriptor of that memfd. Errors: -ENOENT, -EACCES. */
static int find_memory(pid_t keeper, const char *name)
{
	char wanted[64];
	int number = -ENOENT;
	(void)snprintf(wanted, sizeof(wanted), "/memfd:%s (deleted)", name);
	int r = mount_observe_descriptors(keeper, wanted, "", found_memory, &number);
	return r < 0 ? r : number;
}

static int read_plan(MountObserved *observed)
{
	_cleanup_close_ int fd = -1;
	struct stat status;
	int number = find_memory(observed->keeper, MOUNT_PLAN_NAME);
	int r = number < 0 ? number : mount_observe_memory(observed->keeper, number, &fd);
	if (r < 0)
		return r;
	if (fstat(fd, &status) < 0 || status.st_size > PLAN_MAX)
		return -EBADMSG;
	_cleanup_free_ char *json = malloc((size_t)status.st_size + 1);
	if (!json)
		return -ENOMEM;
	r = fd_pread_all(fd, json, (size_t)status.st_size, 0);
	return r < 0 ? r : mount_plan_decode(json, (size_t)status.st_size, &observed->plan, NULL);
}

/* "imgfs:HOST/NAME:TAG@sha256:..." (cmd-mount.c) without its ends. */
char *mount_observe_reference(const char *source)
{
	static const char prefix[] = "imgfs:";
	if (strncmp(source, prefix, sizeof(prefix) - 1) == 0)
		source += sizeof(prefix) - 1;
	return strndup(source, strcspn(source, "@"));
}

static void read_memory(MountObserved *observed)
{
	_cleanup_close_ int record = -1, metrics = -1;
	const MountPlan *plan = &observed->plan;
	if (plan->record_fd > 0 && mount_observe_memory(observed->keeper, plan->record_fd, &record) == 0 &&
	    start_record_load(record, &observed->record) < 0)
		observed->record = NULL;
	if (plan->metrics_fd > 0 && mount_observe_memory(observed->keeper, plan->metrics_fd, &metrics) == 0 &&
	    server_metrics_load(metrics, &observed->metrics) < 0)
		observed->metrics = NULL;
}

static int look_at(const KeeperProcess *keeper, MountObserved *observed)
{
	*observed = (MountObserved){
		.keeper = keeper->pid, .owner = keeper->owner, .holder = keeper->pid, .plan = MOUNT_PLAN_NULL
	};
	int r = read_plan(observed);
	if (r < 0)
		return r;
	observed->directory = strdup(keeper->directory);
	observed->reference = mount_observe_reference(observed->plan.source);
	if (!observed->directory || !observed->reference)
		return -ENOMEM;
	read_memory(observed);
	return 0;
}

/* A layer's chunk table, in memory of this process. */
typedef struct Layer {
	FdMap map;
	Image image;
	ChunkTable table;
} Layer;

struct MountFiles {
	FdMap view_map;
	Image view;
	Tree tree;
	size_t layer_count;
	Layer *layers;
};

static int open_layer(const MountObserved *observed, size_t number, Layer *layer, Error *error)
{
	_cleanup_close_ int fd = -1;
	int r = mount_observed_open(observed, observed->plan.layers[number].index_fd, &fd);
	if (r == 0)
		r = fd_load(fd, &layer->map);
	if (r < 0)
		return error_set(error, r, "the index of layer %zu of %s cannot be read: %s", number,
				 observed->reference, error_text(NULL, r));
	r = image_open(layer->map.data, layer->map.size, &layer->image, error);
	return r < 0 ? r : chunk_table_open(&layer->image, &layer->table, error);
}

static int open_layers(const MountObserved *observed, MountFiles *files, Error *error)
{
	files->layers = calloc(observed->plan.layer_count + 1, sizeof(*files->layers));
	if (!files->layers)
		return error_set(error, -ENOMEM, "out of memory");
	for (; files->layer_count < observed->plan.layer_count; files->layer_count++) {
		int r = open_layer(observed, files->layer_count, &files->layers[files->layer_count], error);
		if (r < 0) {
			files->layer_count++; /* what of it is open is closed with the others */
			return r;
		}
	}
	return 0;
}

int mount_files_open(const MountObserved *observed, MountFiles **ret_files, Error *error)
{
	if (!observed->plan.layers)
		return error_set(error, -ENODATA, "the files of %s are not in the daemon's cache any more",
				 observed->reference);
	_cleanup_(mount_files_free_p) MountFiles *files = calloc(1, sizeof(*files));
	_cleanup_close_ int fd = -1;
	if (!files)
		return error_set(error, -ENOMEM, "out of memory");
	int r = mount_observed_open(observed, observed->plan.view_fd, &fd);
	if (r == 0)
		r = fd_load(fd, &files->view_map);
	if (r < 0)
		return error_set(error, r, "the view of %s cannot be read: %s", observed->reference,
				 error_text(NULL, r));
	r = image_open(files->view_map.data, files->view_map.size, &files->view, error);
	if (r == 0)
		r = tree_open(&files->view, &files->tree, error);
	if (r == 0)
		r = open_layers(observed, files, error);
	if (r < 0)
		return r;
	*ret_files = TAKE_PTR(files);
	return 0;
}

static void close_layers(MountFiles *files)
{
	for (size_t i = 0; files->layers && i < files->layer_count; i++)
		fd_unmap(&files->layers[i].map);
	free(files->layers);
}

MountFiles *mount_files_free(MountFiles *files)
{
	if (files) {
		close_layers(files);
		fd_unmap(&files->view_map);
		free(files);
	}
	return NULL;
}

const Tree *mount_files_tree(const MountFiles *files)
{
	return &files->tree;
}

uint32_t mount_files_chunk_size(void *arg, uint32_t layer, uint32_t chunk)
{
	const MountFiles *files = arg;
	if (layer >= files->layer_count || chunk >= files->layers[layer].table.count)
		return 0;
	Chunk found;
	chunk_table_get(&files->layers[layer].table, chunk, &found);
	return found.blob_size;
}

static int measure_layer(const MountObserved *observed, size_t number, const ChunkTable *table, uint64_t *present)
{
	_cleanup_close_ int fd = -1;
	int bitmap = observed->plan.layers[number].present_fd;
	if (bitmap < 0) {
		*present += table->blob_size;
		return 0;
	}
	int r = mount_observed_open(observed, bitmap, &fd);
	if (r < 0)
		return r;
	_cleanup_free_ uint8_t *bits = cache_bits_read(fd, table->count);
	if (!bits)
		return -ENOMEM;
	for (uint32_t i = 0; i < table->count; i++) {
		Chunk chunk;
		if (!cache_bits_have(bits, i))
			continue;
		chunk_table_get(table, i, &chunk);
		*present += chunk.blob_size;
	}
	return 0;
}

/* The cache that a blob's file is in, by its path; false for a local store's, or one that was deleted. */
static bool cache_of(const MountObserved *observed, char ret_path[static PATH_MAX])
{
	static const char end[] = "/data", above[] = "/blobs/";
	char link[64];
	if (observed->plan.layer_count == 0 || observed->plan.layers[0].present_fd < 0)
		return false;
	(void)snprintf(link, sizeof(link), "/proc/%d/fd/%d", observed->holder, observed->plan.layers[0].data_fd);
	ssize_t length = readlink(link, ret_path, PATH_MAX - 1);
	if (length <= (ssize_t)sizeof(end) || strncmp(ret_path + length - strlen(end), end, strlen(end)) != 0)
		return false;
	ret_path[length - (ssize_t)strlen(end)] = '\0';
	char *hex = strrchr(ret_path, '/');
	if (!hex || hex - ret_path < (ssize_t)strlen(above) - 1)
		return false;
	char *blobs = hex - (strlen(above) - 1);
	if (strncmp(blobs, above, strlen(above)) != 0)
		return false;
	*blobs = '\0';
	return true;
}

static bool is_sealed(const MountObserved *observed)
{
	char path[PATH_MAX];
	Digest manifest;
	_cleanup_(cache_store_free_p) CacheStore *cache = NULL;
	return observed->plan.manifest && digest_from_text(observed->plan.manifest, &manifest) == 0 &&
	       cache_of(observed, path) && cache_store_open(path, false, &cache, NULL) == 0 &&
	       fetch_seal_check(cache, &manifest, observed->plan.source);
}

static int measure_mount(MountObserved *observed)
{
	MountFiles files = { 0 };
	uint64_t needed = 0, present = 0;
	if (!observed->plan.layers)
		return 0;
	int r = open_layers(observed, &files, NULL);
	for (size_t i = 0; r == 0 && i < files.layer_count; i++) {
		needed += files.layers[i].table.blob_size;
		r = measure_layer(observed, i, &files.layers[i].table, &present);
	}
	close_layers(&files);
	observed->measured = r == 0;
	observed->sealed = is_sealed(observed);
	observed->needed = needed;
	observed->present = present;
	return r == -ENOMEM ? r : 0;
}

/* What measuring yields. */
typedef struct Measure {
	bool measured, sealed;
	uint64_t needed, present;
} Measure;

/* Has that process of this user been killed, and is there nevertheless? A killed one has SIGKILL among its pending signals. */
static bool is_stuck(pid_t pid, uid_t owner)
{
	static const char name[] = "Name:\t" APART_NAME "\n";
	_cleanup_free_ char *status = NULL;
	uint64_t pending = 0;
	uid_t user;
	size_t size;
	char path[64];
	(void)snprintf(path, sizeof(path), "/proc/%d/status", pid);
	if (proc_file_read(path, STATUS_MAX, &status, &size) < 0 || strncmp(status, name, strlen(name)) != 0)
		return false;
	const char *uid = strstr(status, "\nUid:"), *signals = strstr(status, "\nSigPnd:");
	return uid && sscanf(uid + 1, "Uid: %u", &user) == 1 && user == owner && signals &&
	       sscanf(signals + 1, "SigPnd: %" SCNx64, &pending) == 1 && pending & UINT64_C(1) << (SIGKILL - 1);
}

static bool has_stuck(uid_t owner)
{
	_cleanup_closedir_ DIR *processes = opendir("/proc");
	bool stuck = false;
	for (struct dirent *entry; processes && !stuck && (entry = readdir(processes));)
		stuck = isdigit((unsigned char)entry->d_name[0]) && is_stuck(atoi(entry->d_name), owner);
	return stuck;
}

/*
 * A process that nobody waits for, with the rights of the keeper's owner: its files and cache are that user's, who may have made them so that whoever reads them
 * waits for ever, even if it is killed.
 */
_Noreturn static void measure_as(const KeeperProcess *keeper, MountObserved *observed, int fd)
{
	(void)prctl(PR_SET_NAME, APART_NAME, 0, 0, 0);
	(void)signal(SIGALRM, SIG_DFL);
	(void)alarm(APART_MS / 1000);
	/* Whoever reads what the parent writes waits for the end of all who could write there. */
	if (dup2(fd, 0) < 0 || close_range(1, ~0u, 0) < 0)
		_exit(1);
	if (setgroups(0, NULL) < 0 || setresgid(keeper->group, keeper->group, keeper->group) < 0 ||
	    setresuid(keeper->owner, keeper->owner, keeper->owner) < 0 || measure_mount(observed) < 0)
		_exit(1);
	Measure measure = { observed->measured, observed->sealed, observed->needed, observed->present };
	_exit(write(0, &measure, sizeof(measure)) != sizeof(measure));
}

static int start_apart(const KeeperProcess *keeper, MountObserved *observed, int *ret_fd)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	_cleanup_close_ int own = ends[0], other = ends[1];
	pid_t pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		pid_t child = fork();
		if (child == 0)
			measure_as(keeper, observed, other);
		_exit(child < 0);
	}
	(void)waitpid(pid, NULL, 0);
	*ret_fd = TAKE_FD(own);
	return 0;
}

static int measure_apart(const KeeperProcess *keeper, MountObserved *observed, int64_t until)
{
	int64_t began = shared_memory_clock() / 1000;
	_cleanup_close_ int fd = -1;
	if (began >= until)
		return 0; /* others have taken all the time there is */
	if (has_stuck(keeper->owner))
		return -ETIMEDOUT; /* one of each user at most: they cost root's memory */
	int r = start_apart(keeper, observed, &fd);
	if (r < 0)
		return r;
	struct pollfd end = { .fd = fd, .events = POLLIN };
	if (poll(&end, 1, APART_MS) <= 0)
		return -ETIMEDOUT;
	Measure measure = { 0 };
	if (read(fd, &measure, sizeof(measure)) != sizeof(measure))
		/* It was ended by the alarm, or by its user, or could not do it. */
		return shared_memory_clock() / 1000 - began < APART_MS / 2 ? 0 : -ETIMEDOUT;
	observed->measured = measure.measured;
	observed->sealed = measure.sealed;
	observed->needed = measure.needed;
	observed->present = measure.present;
	return 0;
}

int mount_observe_measure(MountObserved *observed)
{
	return measure_mount(observed);
}

static int compare(const void *left, const void *right)
{
	return strcmp(((const MountObserved *)left)->directory, ((const MountObserved *)right)->directory);
}

static bool is_at(const MountObserved *mount, const char *path, const char *root)
{
	const char *name = strrchr(mount->directory, '/');
	return strcmp(mount->directory, path) == 0 || (mount->daemon && root && name && strcmp(name, root) == 0);
}

const MountObserved *mounts_observed_at(const MountsObserved *observed, const char *directory)
{
	char path[PATH_MAX];
	MountEntry entry;
	const MountObserved *found = NULL;
	if (mount_table_path(directory, path) < 0)
		return NULL;
	/* What of the daemon's is mounted elsewhere has the image's directory as its root: "/<chain ID>". */
	const char *root = mount_table_find(path, &entry) == 0 && entry.root[1] ? entry.root : NULL;
	for (size_t i = 0; i < observed->count; i++)
		if (is_at(&observed->items[i], path, root))
			found = &observed->items[i];
	return found;
}

/* What is to be done with each keeper. */
typedef struct Look {
	bool measure;
	int64_t until; /* when to stop measuring what others have mounted; milliseconds */
	MountsObserved *observed;
} Look;

/* A keeper of one mount adds that one, the daemon's all images that it has; that is root's. */
static int add_keeper(const KeeperProcess *keeper, const Look *look)
{
	MountObserved item;
	bool own = keeper->owner == geteuid();
	int r = look_at(keeper, &item);
	if (r == -ENOENT) {
		mount_observed_done(&item);
		return own ? mount_observe_daemon(keeper, look->measure, look->observed) : r;
	}
	if (r == 0 && look->measure)
		r = own ? measure_mount(&item) : measure_apart(keeper, &item, look->until);
	if (r == 0)
		r = mount_observe_add(look->observed, &item);
	if (r < 0)
		mount_observed_done(&item);
	return r;
}

static int refuse(const KeeperProcess *keeper, int error, MountsObserved *observed)
{
	MountRefused *larger = reallocarray(observed->refused, observed->refused_count + 1, sizeof(*larger));
	if (!larger)
		return -ENOMEM;
	observed->refused = larger;
	observed->refused[observed->refused_count++] =
		(MountRefused){ .keeper = keeper->pid, .owner = keeper->owner, .error = error };
	return 0;
}

int mount_observe_add(MountsObserved *observed, const MountObserved *item)
{
	MountObserved *larger = reallocarray(observed->items, observed->count + 1, sizeof(*larger));
	if (!larger)
		return -ENOMEM;
	observed->items = larger;
	observed->items[observed->count++] = *item;
	return 0;
}

int mounts_observe(bool measure, MountsObserved *ret_observed)
{
	KeeperProcesses keepers = { 0 };
	MountsObserved observed = { 0 };
	Look look = { .measure = measure, .until = shared_memory_clock() / 1000 + APART_ALL_MS, .observed = &observed };
	int r = keeper_find(NULL, &keepers);
	for (size_t i = 0; r == 0 && i < keepers.count; i++) {
		const KeeperProcess *keeper = &keepers.items[i];
		int found = add_keeper(keeper, &look);
		observed.hidden += found == -EACCES || found == -EPERM;
		r = found == -ENOMEM ? found : 0;
		if (found == -ETIMEDOUT || found == -EBADMSG)
			r = refuse(keeper, found, &observed);
	}
	keeper_processes_done(&keepers);
	if (r < 0) {
		mounts_observed_done(&observed);
		return r;
	}
	if (observed.count > 0)
		qsort(observed.items, observed.count, sizeof(*observed.items), compare);
	*ret_observed = observed;
	return 0;
}
