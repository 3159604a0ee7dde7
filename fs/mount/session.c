#include "fs/mount/session.h"

#include <inttypes.h>
#include <pthread.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>

#include "fs/base/log.h"

/* What one thread writes shares no line of a processor's cache with what others read at each request. */
#define CACHE_LINE 64

#define SHORTAGE_NS 100000000 /* between two tries to read while descriptors or memory lack */

typedef struct Receiver {
	_Alignas(CACHE_LINE) Session *session;
	unsigned slot;
	pthread_t thread;
	Worker worker;
} Receiver;

struct Session {
	Ops ops; /* first: libfuse's user data is the Session and an Ops at once */
	struct fuse_session *fuse;
	ListingHints hints;
	int fd;
	bool answering_init; /* the reply is swallowed; before any thread starts */
	int init_error;      /* what that reply said */
	Receiver receivers[JOURNAL_RECEIVE_SLOTS];
	unsigned started;
};

static ssize_t write_reply(int fd, struct iovec *iov, int count, void *userdata)
{
	Session *session = userdata;
	if (session->answering_init) {
		const struct fuse_out_header *header = iov[0].iov_base;
		session->init_error = header->error;
		ssize_t size = 0;
		for (int i = 0; i < count; i++)
			size += (ssize_t)iov[i].iov_len;
		return size;
	}
	return writev(fd, iov, count);
}

static ssize_t read_request(int fd, void *buffer, size_t size, _unused_ void *userdata)
{
	return read(fd, buffer, size);
}

_printf_(2, 0) static void log_fuse(enum fuse_log_level level, const char *format, va_list args)
{
	char line[512];
	int length = vsnprintf(line, sizeof(line), format, args);
	if (length > 0 && line[strlen(line) - 1] == '\n')
		line[strlen(line) - 1] = '\0';
	log_write(level <= FUSE_LOG_ERR ? LOG_LEVEL_ERROR : LOG_LEVEL_DEBUG, "%s", line);
}

/* An older kernel sends fewer bytes than libfuse's struct has; those missing read as 0. */
static int feed_init(Session *session, const void *init, size_t size, Error *error)
{
	uint8_t bytes[HANDSHAKE_INIT_MAX] = { 0 };
	if (size > sizeof(bytes) || size < sizeof(struct fuse_in_header))
		return error_set(error, -EPROTO, "the saved FUSE_INIT has %zu bytes", size);
	memcpy(bytes, init, size);
	session->answering_init = true;
	fuse_session_process_buf(session->fuse, &(struct fuse_buf){ .mem = bytes, .size = size });
	session->answering_init = false;
	if (session->init_error != 0 || fuse_session_exited(session->fuse))
		return error_set(error, -EPROTO, "libfuse refuses the kernel's FUSE_INIT: %s",
				 strerror(-session->init_error));
	return 0;
}

int session_new(int fuse_fd, const void *init, size_t init_size, const Ops *ops, Journal *journal,
		Session **ret_session, Error *error)
{
	static const struct fuse_custom_io io = { .writev = write_reply, .read = read_request };
	_cleanup_(session_free_p) Session *session = aligned_alloc(CACHE_LINE, sizeof(*session));
	if (!session)
		return error_set(error, -ENOMEM, "out of memory");
	memset(session, 0, sizeof(*session));
	session->ops = *ops;
	session->ops.journal = journal;
	session->ops.hints = &session->hints;
	session->fd = fuse_fd;

	fuse_set_log_func(log_fuse);
	char name[] = "imgfs-server";
	char *argv[] = { name, NULL };
	struct fuse_args args = FUSE_ARGS_INIT(1, argv);
	session->fuse = fuse_session_new(&args, &ops_table, sizeof(ops_table), session);
	fuse_opt_free_args(&args);
	if (!session->fuse || fuse_session_custom_io(session->fuse, &io, fuse_fd) < 0)
		return error_set(error, -ENOMEM, "libfuse makes no session");
	int r = feed_init(session, init, init_size, error);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < JOURNAL_RECEIVE_SLOTS; i++) {
		session->receivers[i] = (Receiver){ .session = session, .slot = i };
		r = worker_init(&session->receivers[i].worker);
		if (r < 0)
			return error_set(error, r, "out of memory");
	}
	*ret_session = TAKE_PTR(session);
	return 0;
}

Session *session_free(Session *session)
{
	if (!session)
		return NULL;
	if (session->fuse)
		fuse_session_destroy(session->fuse); /* closes the descriptor */
	for (unsigned i = 0; i < JOURNAL_RECEIVE_SLOTS; i++)
		worker_done(&session->receivers[i].worker);
	free(session);
	return NULL;
}

/* Interrupts and forgets get no reply; nodes are numbers of inodes, so that forgets mean nothing. */
static void handle(Session *session, Worker *worker, unsigned slot)
{
	struct fuse_in_header *header = journal_slot(session->ops.journal, slot);
	worker->slot = slot;
	worker->at = slot;
	worker->journal = session->ops.journal;
	if (header->opcode == FUSE_INTERRUPT) {
		const struct fuse_interrupt_in *interrupt = (const void *)(header + 1);
		journal_interrupt(session->ops.journal, interrupt->unique);
		read_pool_interrupt(session->ops.pool);
	} else if (header->opcode != FUSE_FORGET && header->opcode != FUSE_BATCH_FORGET) {
		fuse_session_process_buf(session->fuse, &(struct fuse_buf){ .mem = header, .size = header->len });
	}
	worker->journal = NULL;
	if (worker->slot != WORKER_NO_SLOT)
		journal_end(session->ops.journal, slot);
}

/* A request that was there each time a server died is likely the reason: it gets an error instead of another server. */
static void give_up(Session *session, unsigned slot)
{
	const struct fuse_in_header *header = journal_slot(session->ops.journal, slot);
	struct fuse_out_header reply = { .len = sizeof(reply), .error = -EIO, .unique = header->unique };
	log_error("request given up after %u server deaths op=%u node=%" PRIu64,
		  journal_tries(session->ops.journal, slot), header->opcode, (uint64_t)header->nodeid);
	/* ENOENT: it was answered before. There is nobody else to tell. */
	ssize_t written = write(session->fd, &reply, sizeof(reply));
	(void)written;
	journal_end(session->ops.journal, slot);
}

size_t session_recover(Session *session)
{
	static unsigned slots[JOURNAL_SLOTS];
	Worker *worker = &session->receivers[0].worker;
	worker_set_current(worker);
	size_t count = journal_recover(session->ops.journal, slots);
	for (size_t i = 0; i < count; i++) {
		if (journal_tries(session->ops.journal, slots[i]) > JOURNAL_TRIES_MAX)
			give_up(session, slots[i]);
		else
			handle(session, worker, slots[i]);
	}
	worker_set_current(NULL);
	if (count > 0)
		log_info("took over %zu requests", count);
	return count;
}

/* Its end would be the end of all other requests of this server, and the next one would fare no better. */
static void wait_out(int shortage, bool *told)
{
	if (!*told)
		log_warning("reading requests waits, since the machine lacks something reason=\"%s\"",
			    strerror(-shortage));
	*told = true;
	(void)nanosleep(&(struct timespec){ .tv_nsec = SHORTAGE_NS }, NULL);
}

static int receive(Session *session, Receiver *receiver)
{
	void *buffer = journal_slot(session->ops.journal, receiver->slot);
	bool told = false;
	for (;;) {
		journal_begin(session->ops.journal, receiver->slot);
		ssize_t size = read(session->fd, buffer, JOURNAL_RECEIVE_SIZE);
		if (size >= (ssize_t)sizeof(struct fuse_in_header)) {
			told = false;
			handle(session, &receiver->worker, receiver->slot);
			continue;
		}
		int r = size < 0    ? -errno
			: size == 0 ? -ENODEV
				    : -EPROTO; /* where a socket stands in, it ends with 0 */
		journal_end(session->ops.journal, receiver->slot);
		/* ENOENT: the request was withdrawn while it was read. */
		if (error_is_shortage(r))
			wait_out(r, &told);
		else if (r != -EINTR && r != -EAGAIN && r != -ENOENT)
			return r;
	}
}

static void *receiver_thread(void *arg)
{
	Receiver *receiver = arg;
	worker_set_current(&receiver->worker);
	int r = receive(receiver->session, receiver);
	fuse_session_exit(receiver->session->fuse);
	return (void *)(intptr_t)r;
}

int session_start(Session *session)
{
	for (; session->started < JOURNAL_RECEIVE_SLOTS; session->started++) {
		Receiver *receiver = &session->receivers[session->started];
		int r = -pthread_create(&receiver->thread, NULL, receiver_thread, receiver);
		if (r < 0)
			return r;
	}
	return 0;
}

int session_wait(Session *session)
{
	for (unsigned i = 0; i < session->started; i++) {
		void *result;
		(void)pthread_join(session->receivers[i].thread, &result);
		if ((intptr_t)result != -ENODEV)
			return (int)(intptr_t)result;
	}
	return 0;
}
