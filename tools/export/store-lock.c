#include "tools/export/store-lock.h"

#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>

#include "tools/export/store-private.h"

#define GATE_NAME "gc-gate"
#define LOCK_NAME "gc-lock"
#define PAUSE     20 /* milliseconds between two tries */

/* A lock needs no right to write, so a reader of somebody else's store holds it as well. */
static int open_lock(Store *store, const char *name, bool create)
{
	int fd = openat(store->fd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOCTTY, 0644);
	if (fd < 0 && !create && (errno == EACCES || errno == EROFS || errno == EPERM))
		fd = openat(store->fd, name, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	return fd < 0 ? -errno : fd;
}

static int lock_error(const Store *store, int code, const char *name, Error *error)
{
	return error_set(error, code, "store %s: cannot lock %s: %s", store->path, name, error_text(NULL, code));
}

static int take(int fd, int how)
{
	int r;
	do
		r = flock(fd, how) < 0 ? -errno : 0;
	while (r == -EINTR);
	return r;
}

int store_hold(Store *store, int *ret_fd, Error *error)
{
	_cleanup_close_ int gate = open_lock(store, GATE_NAME, false);
	_cleanup_close_ int lock = open_lock(store, LOCK_NAME, false);
	if (gate == -ENOENT || lock == -ENOENT) {
		*ret_fd = -1;
		return 0;
	}
	if (gate < 0)
		return lock_error(store, gate, GATE_NAME, error);
	if (lock < 0)
		return lock_error(store, lock, LOCK_NAME, error);
	int r = take(gate, LOCK_SH);
	if (r == 0)
		r = take(lock, LOCK_SH);
	if (r < 0)
		return lock_error(store, r, LOCK_NAME, error);
	*ret_fd = TAKE_FD(lock);
	return 0;
}

/* How a collector waits: one deadline for both locks. */
typedef struct Patience {
	struct timespec end;
	void (*waiting)(void *arg);
	void *arg;
} Patience;

static bool is_over(const struct timespec *end)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec > end->tv_sec || (now.tv_sec == end->tv_sec && now.tv_nsec >= end->tv_nsec);
}

static int take_patiently(int fd, Patience *patience)
{
	const struct timespec pause = { .tv_nsec = PAUSE * 1000000L };
	for (;;) {
		int r = take(fd, LOCK_EX | LOCK_NB);
		if (r != -EWOULDBLOCK)
			return r;
		if (is_over(&patience->end))
			return -EBUSY;
		if (patience->waiting)
			patience->waiting(patience->arg);
		patience->waiting = NULL;
		(void)nanosleep(&pause, NULL);
	}
}

int store_collector_enter(Store *store, unsigned seconds, void (*waiting)(void *arg), void *arg,
			  StoreCollector *ret_collector, Error *error)
{
	Patience patience = { .waiting = waiting, .arg = arg };
	(void)clock_gettime(CLOCK_MONOTONIC, &patience.end);
	patience.end.tv_sec += seconds;
	_cleanup_close_ int gate = open_lock(store, GATE_NAME, true);
	if (gate < 0)
		return store_error(store, gate, GATE_NAME, error);
	_cleanup_close_ int lock = open_lock(store, LOCK_NAME, true);
	if (lock < 0)
		return store_error(store, lock, LOCK_NAME, error);
	int r = take_patiently(gate, &patience);
	if (r == 0)
		r = take_patiently(lock, &patience);
	if (r == -EBUSY)
		return error_set(error, r,
				 "store %s is in use by an export or another command that works on it; try again when "
				 "it is done",
				 store->path);
	if (r < 0)
		return lock_error(store, r, LOCK_NAME, error);
	*ret_collector = (StoreCollector){ .gate = TAKE_FD(gate), .lock = TAKE_FD(lock) };
	return 0;
}

void store_collector_leave(StoreCollector *collector)
{
	if (collector->lock >= 0)
		(void)close(TAKE_FD(collector->lock));
	if (collector->gate >= 0)
		(void)close(TAKE_FD(collector->gate));
}
