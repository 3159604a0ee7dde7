#include "fs/mount/janitor.h"

#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fs/base/log.h"
#include "fs/cache/cache-evict.h"

#define STEP_PART     64u /* of the quota: so much may be stored before the cache is measured again */
#define STEP_MIN      (256u << 10)
#define STEP_MAX      (64u << 20)
#define FREE_PART     16u /* of a disk that is full: so much is made free */
#define FREE_MAX      (256u << 20)
#define WARN_INTERVAL 60  /* seconds */
#define RESTART_PAUSE 500 /* milliseconds before who was killed is replaced */
#define AGAIN_FIRST   3   /* seconds after which what was in use may not be any more */

static int64_t seconds_now(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec;
}

/* Has so much been stored that the quota may be passed? */
static bool has_grown(const Janitor *janitor, uint64_t bytes)
{
	uint64_t step = janitor->quota / STEP_PART;
	if (step < STEP_MIN)
		step = STEP_MIN;
	if (step > STEP_MAX)
		step = STEP_MAX;
	return janitor->quota != 0 && (!janitor->looked || bytes - janitor->bytes >= step);
}

/* Is there something to be done though nothing was stored? */
static bool is_due(const Janitor *janitor)
{
	return janitor->again != 0 ? seconds_now() >= janitor->again : cache_evict_is_unfinished(janitor->cache);
}

static uint64_t wanted_free(CacheStore *cache)
{
	struct statvfs status;
	if (fstatvfs(cache_store_fd(cache), &status) < 0)
		return FREE_MAX;
	uint64_t part = (uint64_t)status.f_blocks * status.f_frsize / FREE_PART;
	return part < FREE_MAX ? part : FREE_MAX;
}

static void warn(Janitor *janitor, const char *sentence)
{
	int64_t now = seconds_now();
	if (janitor->warned != 0 && now - janitor->warned < WARN_INTERVAL)
		return;
	janitor->warned = now;
	log_warning("%s", sentence);
}

static int64_t next_delay(int64_t delay)
{
	if (delay == 0)
		return AGAIN_FIRST;
	return 2 * delay < WARN_INTERVAL ? 2 * delay : WARN_INTERVAL;
}

static void evict(Janitor *janitor, bool full)
{
	CacheEvict options = { .quota = janitor->quota, .free = full ? wanted_free(janitor->cache) : 0 };
	CacheEvicted evicted = { 0 };
	Error error = { 0 };
	janitor->again = 0;
	if (cache_evict(janitor->cache, &options, &evicted, &error) < 0) {
		warn(janitor, error.message);
		if (cache_evict_is_unfinished(janitor->cache)) { /* but not at each step */
			janitor->delay = next_delay(janitor->delay);
			janitor->again = seconds_now() + janitor->delay;
		}
		return;
	}
	(void)atomic_fetch_add(&janitor->metrics->fetch.evicted, evicted.chunks);
	if (full && evicted.chunks > 0)
		log_info("the disk was full, and chunks were evicted chunks=%" PRIu64 " bytes=%" PRIu64, evicted.chunks,
			 evicted.before - evicted.after);
	janitor->delay = evicted.busy || !evicted.enough ? next_delay(janitor->delay) : 0;
	janitor->again = janitor->delay ? seconds_now() + janitor->delay : 0;
	if (!evicted.busy && !evicted.enough) {
		(void)error_set(
			&error, -EBUSY,
			"the cache stays larger than it may be: the rest is pinned, sealed or in use bytes=%" PRIu64
			" quota=%" PRIu64 " kept=%" PRIu64,
			evicted.after, janitor->quota, evicted.kept);
		warn(janitor, error.message);
	}
}

void janitor_step(Janitor *janitor)
{
	uint64_t bytes = atomic_load(&janitor->metrics->fetch.bytes);
	uint64_t failures = atomic_load(&janitor->metrics->fetch.disk_failures);
	bool full = janitor->looked && failures != janitor->failures;
	bool grown = has_grown(janitor, bytes) || is_due(janitor);
	if (full || grown || !janitor->looked) {
		janitor->bytes = bytes;
		janitor->failures = failures;
	}
	janitor->looked = true;
	if (full || grown)
		evict(janitor, full);
}

/* Of all that the server inherited, its connection among it, only these are the janitor's business: they become 3, 4 and so on. */
static int keep_open(int *const fds[], size_t count)
{
	for (size_t i = 0; i < count; i++) {
		*fds[i] = fcntl(*fds[i], F_DUPFD_CLOEXEC, 3 + (int)count);
		if (*fds[i] < 0)
			return -errno;
	}
	for (size_t i = 0; i < count; i++) {
		if (dup3(*fds[i], 3 + (int)i, O_CLOEXEC) < 0)
			return -errno;
		*fds[i] = 3 + (int)i;
	}
	return close_range(3 + (unsigned)count, ~0u, 0) < 0 ? -errno : 0;
}

/* Does its work until the server ends, or the process ends that the descriptor stands for (-1: none). */
static void work(Janitor *janitor, int server, int guard)
{
	struct pollfd ends[] = { { .fd = server, .events = POLLIN }, { .fd = guard, .events = POLLIN } };
	*janitor = (Janitor){ .cache = janitor->cache, .metrics = janitor->metrics, .quota = janitor->quota };
	do
		janitor_step(janitor);
	while (poll(ends, ELEMENTS(ends), JANITOR_INTERVAL) <= 0);
	if (ends[0].revents)
		_exit(0);
}

/* Waits until the child has been killed. */
static void watch(int server, pid_t pid, int child)
{
	struct pollfd ends[] = { { .fd = server, .events = POLLIN }, { .fd = child, .events = POLLIN } };
	while (poll(ends, ELEMENTS(ends), -1) <= 0)
		;
	(void)waitpid(pid, NULL, ends[0].revents ? WNOHANG : 0); /* it sees the server's end by itself */
	if (ends[0].revents)
		_exit(0);
	log_warning("the janitor was killed, and is started again");
	if (poll(ends, 1, RESTART_PAUSE) > 0)
		_exit(0);
}

/*
 * Two processes: one does the work, and the other, its parent, starts another one when it is killed. When the parent is killed, the child takes its place. So who is
 * killed alone is missed for a moment only; the server cannot start one, since it has given up what that takes.
 */
_Noreturn static void guard(Janitor *janitor, int server)
{
	for (;;) {
		_cleanup_close_ int self = pidfd_open(getpid(), 0);
		pid_t pid = self < 0 ? -1 : fork();
		if (pid == 0) {
			work(janitor, server, self);
			log_warning("the janitor's guard was killed, and is started again");
			continue;
		}
		_cleanup_close_ int child = pid < 0 ? -1 : pidfd_open(pid, 0);
		if (child >= 0) {
			watch(server, pid, child);
			continue;
		}
		if (pid > 0) {
			(void)kill(pid, SIGKILL);
			(void)waitpid(pid, NULL, 0);
		}
		work(janitor, server, -1); /* without a guard, better than not at all */
	}
}

/*
 * The server holds the other end of the pipe, whoever it is by then: a death signal would not come, since who has given up root may not
 * send one to root.
 */
_Noreturn static void run(const MountPlan *plan, int server)
{
	Janitor janitor = { .quota = plan->quota };
	int cache = plan->cache_fd, metrics = plan->metrics_fd;
	int *const fds[] = { &server, &cache, &metrics };
	(void)prctl(PR_SET_NAME, "imgfs-janitor");
	(void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (keep_open(fds, metrics < 0 ? 2 : 3) < 0 || cache_store_adopt(cache, &janitor.cache) < 0 ||
	    server_metrics_open(metrics, &janitor.metrics) < 0)
		_exit(1);
	guard(&janitor, server);
}

int janitor_start(const MountPlan *plan)
{
	int ends[2];
	if (plan->cache_fd < 0)
		return 0;
	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	pid_t janitor = fork();
	int r = janitor < 0 ? -errno : 0;
	if (janitor == 0) {
		(void)close(ends[1]);
		run(plan, ends[0]);
	}
	(void)close(ends[0]);
	if (r < 0)
		(void)close(ends[1]);
	return r;
}
