/* Messages of the node daemon, over a socket with descriptors beside them; what a crash leaves in the journal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fs/base/bytes.h"
#include "fs/mount/crash-note.h"
#include "fs/mount/daemon-message.h"
#include "fs/mount/journal.h"

#define NAME "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static int ends[2];

static int setup(_unused_ void **state)
{
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends);
}

static int teardown(_unused_ void **state)
{
	(void)close(ends[0]);
	(void)close(ends[1]);
	return 0;
}

static void test_travels(_unused_ void **state)
{
	static DaemonPacket packet;
	int fds[DAEMON_MESSAGE_FDS];
	DaemonMessage message = { .type = DAEMON_ATTACH, .slot = 9, .flags = DAEMON_FLAG_XATTR, .count = 700 };
	memcpy(message.name, NAME, sizeof(NAME));
	for (size_t i = 0; i < DAEMON_MESSAGE_FDS; i++)
		fds[i] = ends[0];
	assert_int_equal(daemon_message_send(ends[0], &message, fds, DAEMON_MESSAGE_FDS, 0), 0);
	assert_int_equal(daemon_message_receive(ends[1], &packet, 0), 0);
	assert_int_equal(packet.message.type, DAEMON_ATTACH);
	assert_int_equal(packet.message.slot, 9);
	assert_int_equal(packet.message.count, 700);
	assert_string_equal(packet.message.name, NAME);
	assert_int_equal(packet.fd_count, DAEMON_MESSAGE_FDS);
	assert_int_equal(fcntl(packet.fds[0], F_GETFD), FD_CLOEXEC);
	int first = packet.fds[0];
	daemon_packet_close(&packet);
	assert_int_equal(fcntl(first, F_GETFD), -1);
	assert_int_equal(daemon_message_send(ends[0], &message, fds, DAEMON_MESSAGE_FDS + 1, 0), -EMSGSIZE);
}

static void test_sentence(_unused_ void **state)
{
	static DaemonPacket packet;
	char text[12];
	static const char sentence[] = "there is no such image";
	DaemonMessage message = { .type = DAEMON_ANSWER,
				  .result = -ENOENT,
				  .rest = (const uint8_t *)sentence,
				  .rest_size = strlen(sentence) };
	assert_int_equal(daemon_message_send(ends[0], &message, NULL, 0, 0), 0);
	assert_int_equal(daemon_message_receive(ends[1], &packet, 0), 0);
	assert_int_equal(packet.message.result, -ENOENT);
	daemon_message_text(&packet.message, text, sizeof(text));
	assert_string_equal(text, "there is no");
}

static void test_ends(_unused_ void **state)
{
	static DaemonPacket packet;
	assert_int_equal(daemon_message_receive(ends[1], &packet, MSG_DONTWAIT), -EAGAIN);
	(void)shutdown(ends[0], SHUT_RDWR);
	assert_int_equal(daemon_message_receive(ends[1], &packet, 0), -EPIPE);
	assert_int_equal(daemon_message_send(ends[1], &(DaemonMessage){ .type = DAEMON_LIST }, NULL, 0, 0), -EPIPE);
}

static void test_without_descriptors_to_spare(_unused_ void **state)
{
	static DaemonPacket packet;
	int fds[] = { ends[0], ends[0], ends[0] };
	assert_int_equal(daemon_message_send(ends[0], &(DaemonMessage){ .type = DAEMON_MORE, .slot = 1 }, fds, 3, 0),
			 0);
	assert_int_equal(daemon_message_receive(ends[1], &packet, 0), 0);
	daemon_packet_close(&packet);
	/* More than a packet may have: the kernel cuts them, and none is kept. */
	uint8_t bytes[DAEMON_MESSAGE_MAX] = { 0 };
	assert_int_equal(send(ends[0], bytes, 10, 0), 10);
	assert_int_equal(daemon_message_receive(ends[1], &packet, 0), -EBADMSG);
}

static ssize_t make(uint8_t *bytes)
{
	DaemonMessage message = { .type = DAEMON_ATTACH, .slot = 1, .count = 5 };
	memcpy(message.name, NAME, sizeof(NAME));
	return daemon_message_write(&message, bytes);
}

static void test_refused(_unused_ void **state)
{
	static const struct {
		size_t at;
		uint32_t value;
	} wrong[] = { { 0, 0 },
		      { 0, DAEMON_MESSAGE_TYPES },
		      { 4, 0 },
		      { 4, 0x80000000u },
		      { 8, 8 },
		      { 12, 1 },
		      { 12, 0x80000000u },
		      { 16, 0 },
		      { 16, DAEMON_ATTACH_FDS + 1 },
		      { 20, 0 } };
	uint8_t bytes[DAEMON_MESSAGE_MAX];
	DaemonMessage message;
	ssize_t size = make(bytes);
	assert_int_equal(daemon_message_read(bytes, (size_t)size, &message), 0);
	assert_int_equal(daemon_message_read(bytes, (size_t)size - 1, &message), -EBADMSG);
	for (size_t i = 0; i < ELEMENTS(wrong); i++) {
		(void)make(bytes);
		store_le32(bytes + wrong[i].at, wrong[i].value);
		assert_int_equal(daemon_message_read(bytes, (size_t)size, &message), -EBADMSG);
	}
}

/* The image of the request in a slot; none where there is no request. The keeper takes it once. */
static void test_culprit(_unused_ void **state)
{
	int fd;
	Journal *journal;
	assert_int_equal(journal_create(&fd), 0);
	assert_int_equal(journal_open(fd, &journal), 0);
	assert_int_equal(journal_take_culprit(fd), 0);
	journal_blame(journal, 1);
	assert_int_equal(journal_take_culprit(fd), 0);
	struct fuse_in_header *header = journal_slot(journal, 1);
	*header = (struct fuse_in_header){ .len = sizeof(*header), .nodeid = UINT64_C(77) << 32 | 5 };
	journal_blame(journal, 1);
	assert_int_equal(journal_take_culprit(fd), 77);
	assert_int_equal(journal_take_culprit(fd), 0);
	journal_free(journal);
	(void)close(fd);
}

/* One that nobody has asked for yet: each server opens it, and would die of it for ever. */
static void test_culprit_without_a_request(_unused_ void **state)
{
	int fd, status;
	Journal *journal;
	assert_int_equal(journal_create(&fd), 0);
	assert_int_equal(journal_open(fd, &journal), 0);
	for (uint32_t last = 0; last <= 78; last += 78) {
		pid_t pid = fork();
		if (pid == 0) {
			crash_note_install();
			crash_note_opening(journal, 78);
			crash_note_opening(journal, last);
			(void)raise(SIGSEGV);
			_exit(0);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
		assert_int_equal(journal_take_culprit(fd), last);
	}
	journal_free(journal);
	(void)close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_travels, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sentence, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ends, setup, teardown),
		cmocka_unit_test_setup_teardown(test_without_descriptors_to_spare, setup, teardown),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_culprit),
		cmocka_unit_test(test_culprit_without_a_request),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
