/* The journal: what a server killed at any moment leaves behind is enough to answer every request. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#include <cmocka.h>

#include "fs/mount/journal.h"

typedef struct Request {
	struct fuse_in_header header;
	struct fuse_read_in read;
} Request;

static int setup(void **state)
{
	int *fd = malloc(sizeof(*fd));
	if (!fd || journal_create(fd) < 0)
		return -1;
	*state = fd;
	return 0;
}

static int teardown(void **state)
{
	int *fd = *state;
	close(*fd);
	free(fd);
	return 0;
}

static Journal *open_journal(void **state)
{
	Journal *journal;
	assert_int_equal(journal_open(*(int *)*state, &journal), 0);
	return journal;
}

static void put(Journal *journal, unsigned slot, uint32_t opcode, uint64_t unique, uint32_t length)
{
	Request request = { .header = { .len = length, .opcode = opcode, .unique = unique } };
	memcpy(journal_slot(journal, slot), &request, sizeof(request));
}

static uint64_t unique_at(Journal *journal, unsigned slot)
{
	return ((struct fuse_in_header *)journal_slot(journal, slot))->unique;
}

static void test_empty(void **state)
{
	static unsigned slots[JOURNAL_SLOTS];
	Journal *journal = open_journal(state);
	assert_int_equal(journal_recover(journal, slots), 0);
	assert_int_equal((uintptr_t)journal_slot(journal, 0) % 4096, 0);
	journal_free(journal);
}

static void test_not_a_journal(void **state)
{
	Journal *journal;
	int fd = memfd_create("short", 0);
	assert_int_equal(journal_open(fd, &journal), -EBADMSG);
	close(fd);
	fd = *(int *)*state;
	assert_int_equal(pwrite(fd, "?", 1, 0), 1);
	assert_int_equal(journal_open(fd, &journal), -EBADMSG);
}

/* No server can make the journal smaller under the next one. */
static void test_sealed(void **state)
{
	assert_int_equal(ftruncate(*(int *)*state, 4096), -1);
	assert_int_equal(errno, EPERM);
}

static void test_answered_request_is_gone(void **state)
{
	static unsigned slots[JOURNAL_SLOTS];
	Journal *journal = open_journal(state);
	journal_begin(journal, 0);
	put(journal, 0, FUSE_LOOKUP, 10, sizeof(Request));
	journal_begin(journal, 1);
	put(journal, 1, FUSE_READ, 12, sizeof(Request));
	journal_end(journal, 0);
	journal_free(journal);

	journal = open_journal(state);
	assert_int_equal(journal_recover(journal, slots), 1);
	assert_int_equal(slots[0], 1);
	assert_int_equal(unique_at(journal, 1), 12);
	assert_int_equal(journal_tries(journal, 1), 1);
	journal_free(journal);
}

static void test_tries_count_deaths(void **state)
{
	static unsigned slots[JOURNAL_SLOTS];
	Journal *journal = open_journal(state);
	journal_begin(journal, 0);
	put(journal, 0, FUSE_READ, 10, sizeof(Request));
	for (unsigned i = 1; i <= JOURNAL_TRIES_MAX + 1; i++) {
		assert_int_equal(journal_recover(journal, slots), 1);
		assert_int_equal(journal_tries(journal, slots[0]), i);
		unsigned parked;
		assert_int_equal(journal_park(journal, slots[0], 1000, &parked), 0);
		assert_int_equal(journal_tries(journal, parked), i);
		journal_free(journal);
		journal = open_journal(state);
	}
	journal_end(journal, slots[0]);
	journal_begin(journal, 0);
	assert_int_equal(journal_tries(journal, 0), 0);
	journal_free(journal);
}

static void test_broken_slots_are_dropped(void **state)
{
	static unsigned slots[JOURNAL_SLOTS];
	Journal *journal = open_journal(state);
	put(journal, 0, FUSE_READ, 10, sizeof(struct fuse_in_header) - 1);
	put(journal, 1, FUSE_READ, 12, JOURNAL_RECEIVE_SIZE + 1);
	put(journal, 2, FUSE_FORGET, 14, sizeof(Request));
	put(journal, JOURNAL_RECEIVE_SLOTS, FUSE_READ, 16, JOURNAL_PARKED_SIZE + 1);
	put(journal, JOURNAL_SLOTS - 1, FUSE_BATCH_FORGET, 18, sizeof(Request));
	journal_free(journal);
	journal = open_journal(state);
	assert_int_equal(journal_recover(journal, slots), 0);
	journal_free(journal);
	journal = open_journal(state);
	assert_int_equal(journal_recover(journal, slots), 0);
	journal_free(journal);
}

/* As a death between the two marks of journal_park() leaves it. */
static void test_duplicate_is_dropped(void **state)
{
	static unsigned slots[JOURNAL_SLOTS];
	Journal *journal = open_journal(state);
	put(journal, 1, FUSE_READ, 20, sizeof(Request));
	put(journal, JOURNAL_SLOTS - 1, FUSE_READ, 20, sizeof(Request));
	journal_free(journal);
	journal = open_journal(state);
	assert_int_equal(journal_recover(journal, slots), 1);
	assert_int_equal(slots[0], JOURNAL_SLOTS - 1);
	journal_free(journal);
}

static void test_park(void **state)
{
	static unsigned slots[JOURNAL_SLOTS];
	Journal *journal = open_journal(state);
	unsigned parked, again;
	put(journal, 2, FUSE_READ, 30, sizeof(Request));
	assert_int_equal(journal_park(journal, 2, 1000, &parked), 0);
	assert_true(parked >= JOURNAL_RECEIVE_SLOTS);
	assert_int_equal(unique_at(journal, parked), 30);
	assert_int_equal(journal_park(journal, parked, 1000, &again), 0);
	assert_int_equal(again, parked);
	put(journal, 2, FUSE_READ, 32, JOURNAL_PARKED_SIZE + 1);
	assert_int_equal(journal_park(journal, 2, 1000, &again), -EMSGSIZE);
	journal_end(journal, 2);
	assert_int_equal(journal_recover(journal, slots), 1);
	assert_int_equal(slots[0], parked);
	journal_free(journal);
}

/* A request that waits for the network is not why a server died, and its deadline goes on. */
static void test_waiting_is_no_try(void **state)
{
	static unsigned slots[JOURNAL_SLOTS];
	Journal *journal = open_journal(state);
	unsigned parked, again;
	journal_begin(journal, 0);
	put(journal, 0, FUSE_READ, 30, sizeof(Request));
	assert_int_equal(journal_park(journal, 0, 12345, &parked), 0);
	for (unsigned i = 0; i < 3; i++) {
		journal_set_waiting(journal, parked, true);
		assert_int_equal(journal_recover(journal, slots), 1);
		assert_int_equal(journal_tries(journal, parked), 0);
		assert_int_equal(journal_park(journal, parked, 99999, &again), 0);
		assert_int_equal(again, parked);
		assert_int_equal(journal_deadline(journal, parked), 12345);
	}
	assert_int_equal(journal_recover(journal, slots), 1);
	assert_int_equal(journal_tries(journal, parked), 1);
	journal_set_waiting(journal, parked, true);
	journal_set_waiting(journal, parked, false);
	assert_int_equal(journal_recover(journal, slots), 1);
	assert_int_equal(journal_tries(journal, parked), 2);
	journal_free(journal);
}

static void *end_later(void *arg)
{
	(void)nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
	journal_end(arg, JOURNAL_RECEIVE_SLOTS + 7);
	return NULL;
}

static void test_park_waits_for_a_slot(void **state)
{
	Journal *journal = open_journal(state);
	unsigned parked;
	for (unsigned i = 0; i < JOURNAL_PARKED_SLOTS; i++) {
		put(journal, 0, FUSE_READ, 2 * i + 2, sizeof(Request));
		assert_int_equal(journal_park(journal, 0, 1000, &parked), 0);
	}
	pthread_t thread;
	assert_int_equal(pthread_create(&thread, NULL, end_later, journal), 0);
	put(journal, 0, FUSE_READ, 100000, sizeof(Request));
	assert_int_equal(journal_park(journal, 0, 1000, &parked), 0);
	assert_int_equal(parked, JOURNAL_RECEIVE_SLOTS + 7);
	pthread_join(thread, NULL);
	journal_free(journal);
}

static void test_interrupt(void **state)
{
	static unsigned slots[JOURNAL_SLOTS];
	Journal *journal = open_journal(state);
	journal_begin(journal, 0);
	journal_begin(journal, 1);
	put(journal, 0, FUSE_READ, 40, sizeof(Request));
	put(journal, 1, FUSE_READ, 42, sizeof(Request));
	journal_interrupt(journal, 42);
	journal_interrupt(journal, 44);
	assert_false(journal_interrupted(journal, 0));
	assert_true(journal_interrupted(journal, 1));
	unsigned parked;
	assert_int_equal(journal_park(journal, 1, 1000, &parked), 0);
	assert_true(journal_interrupted(journal, parked));

	/* One that was only received reaches its request through the successor. */
	struct {
		struct fuse_in_header header;
		struct fuse_interrupt_in interrupt;
	} request = { { .len = sizeof(request), .opcode = FUSE_INTERRUPT, .unique = 41 }, { .unique = 40 } };
	memcpy(journal_slot(journal, 2), &request, sizeof(request));
	assert_int_equal(journal_recover(journal, slots), 2);
	assert_true(journal_interrupted(journal, 0));
	journal_free(journal);
}

/* ---- a server killed at any moment ---- */

#define ROUNDS   60
#define IN_TURN  400
#define CHECKSUM UINT64_C(0x9e3779b97f4a7c15)

static void *child_thread(void *arg)
{
	Journal *journal = ((void **)arg)[0];
	int socket = *(int *)((void **)arg)[1];
	unsigned receive = *(unsigned *)((void **)arg)[2];
	unsigned parked[8];
	unsigned count = 0;
	for (unsigned turn = 0;; turn++) {
		journal_begin(journal, receive);
		if (read(socket, journal_slot(journal, receive), JOURNAL_RECEIVE_SIZE) <= 0)
			return NULL;
		uint64_t unique = unique_at(journal, receive);
		if (turn % 2) {
			assert_int_equal(journal_park(journal, receive, 1000, &parked[count++]), 0);
		} else {
			assert_int_equal(write(socket, &unique, sizeof(unique)), sizeof(unique));
			journal_end(journal, receive);
		}
		while (count == ELEMENTS(parked) || (count > 0 && turn % 5 == 0)) {
			unique = unique_at(journal, parked[--count]);
			assert_int_equal(write(socket, &unique, sizeof(unique)), sizeof(unique));
			journal_end(journal, parked[count]);
		}
	}
}

_Noreturn static void run_child(int fd, int socket)
{
	Journal *journal;
	if (journal_open(fd, &journal) < 0)
		_exit(1);
	pthread_t threads[JOURNAL_RECEIVE_SLOTS];
	unsigned numbers[JOURNAL_RECEIVE_SLOTS];
	void *args[JOURNAL_RECEIVE_SLOTS][3];
	for (unsigned i = 0; i < JOURNAL_RECEIVE_SLOTS; i++) {
		numbers[i] = i;
		args[i][0] = journal;
		args[i][1] = &socket;
		args[i][2] = &numbers[i];
		if (pthread_create(&threads[i], NULL, child_thread, args[i]) != 0)
			_exit(1);
	}
	for (;;)
		pause();
}

typedef enum Fate { UNSENT, SENT, ANSWERED } Fate;

static void collect_answers(int socket, Fate *fates)
{
	uint64_t unique;
	while (recv(socket, &unique, sizeof(unique), MSG_DONTWAIT) == sizeof(unique))
		fates[unique / 2] = ANSWERED;
}

static void send_request(int socket, uint64_t number)
{
	Request request = {
		.header = { .len = sizeof(request), .opcode = FUSE_READ, .unique = 2 * number, .nodeid = number },
		.read = { .offset = number * CHECKSUM },
	};
	assert_int_equal(send(socket, &request, sizeof(request), 0), sizeof(request));
}

/* Sent, neither answered nor still in the socket: the successor must find it whole. */
static void check_recovered(int fd, int far_end, Fate *fates, size_t count)
{
	static unsigned slots[JOURNAL_SLOTS];
	Request request;
	while (recv(far_end, &request, sizeof(request), MSG_DONTWAIT) == sizeof(request))
		fates[request.header.unique / 2] = ANSWERED;
	Journal *journal;
	assert_int_equal(journal_open(fd, &journal), 0);
	size_t found = journal_recover(journal, slots);
	for (size_t i = 0; i < found; i++) {
		memcpy(&request, journal_slot(journal, slots[i]), sizeof(request));
		assert_int_equal(request.header.unique, 2 * request.header.nodeid);
		assert_int_equal(request.read.offset, request.header.nodeid * CHECKSUM);
		fates[request.header.unique / 2] = ANSWERED;
		journal_end(journal, slots[i]);
	}
	for (size_t i = 0; i < count; i++)
		assert_int_not_equal(fates[i], SENT);
	journal_free(journal);
}

static void kill_one(int fd, unsigned seed)
{
	int sockets[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sockets), 0);
	pid_t child = fork();
	if (child == 0) {
		close(sockets[0]);
		run_child(fd, sockets[1]);
	}
	Fate fates[IN_TURN + 1] = { UNSENT };
	unsigned last = 20 + seed * 37 % (IN_TURN - 20);
	for (unsigned number = 1; number <= last; number++) {
		fates[number] = SENT;
		send_request(sockets[0], number);
		collect_answers(sockets[0], fates);
	}
	assert_int_equal(kill(child, SIGKILL), 0);
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	collect_answers(sockets[0], fates);
	check_recovered(fd, sockets[1], fates, last + 1);
	close(sockets[0]);
	close(sockets[1]);
}

static void test_killed_server(void **state)
{
	for (unsigned i = 0; i < ROUNDS; i++)
		kill_one(*(int *)*state, i);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_empty, setup, teardown),
		cmocka_unit_test_setup_teardown(test_not_a_journal, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sealed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_answered_request_is_gone, setup, teardown),
		cmocka_unit_test_setup_teardown(test_tries_count_deaths, setup, teardown),
		cmocka_unit_test_setup_teardown(test_broken_slots_are_dropped, setup, teardown),
		cmocka_unit_test_setup_teardown(test_duplicate_is_dropped, setup, teardown),
		cmocka_unit_test_setup_teardown(test_park, setup, teardown),
		cmocka_unit_test_setup_teardown(test_park_waits_for_a_slot, setup, teardown),
		cmocka_unit_test_setup_teardown(test_waiting_is_no_try, setup, teardown),
		cmocka_unit_test_setup_teardown(test_interrupt, setup, teardown),
		cmocka_unit_test_setup_teardown(test_killed_server, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
