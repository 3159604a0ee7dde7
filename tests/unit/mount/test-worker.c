/* Reply buffers: present for as much as was asked for, and for little more. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "fs/mount/worker.h"

#define PAGE 4096u
#define SOME ((size_t)200 << 10)

/* How many bytes of the buffer are there, which is from its start on; SIZE_MAX: with holes. */
static size_t present(const Worker *worker)
{
	unsigned char pages[WORKER_BUFFER_SIZE / PAGE];
	size_t count = 0, total = 0;
	if (mincore(worker->buffer, WORKER_BUFFER_SIZE, pages) < 0)
		return SIZE_MAX;
	while (count < sizeof(pages) && pages[count] & 1)
		count++;
	for (size_t i = 0; i < sizeof(pages); i++)
		total += pages[i] & 1;
	return total == count ? count * PAGE : SIZE_MAX;
}

/* 0, or the line of what is wrong. */
static int check(void)
{
	Worker worker;
	if (worker_init(&worker) < 0)
		return __LINE__;
	size_t first = present(&worker);
	if (first == 0 || first > WORKER_BUFFER_SIZE / 8)
		return __LINE__;
	uint8_t *buffer = worker_buffer(&worker, first);
	if (buffer != worker.buffer || present(&worker) != first)
		return __LINE__;
	memset(buffer, 0x5a, first);
	if (worker_buffer(&worker, SOME) != buffer || present(&worker) < SOME || present(&worker) >= 2 * SOME)
		return __LINE__;
	if (buffer[0] != 0x5a || buffer[first - 1] != 0x5a)
		return __LINE__;
	if (worker_buffer(&worker, WORKER_BUFFER_SIZE) != buffer || present(&worker) != WORKER_BUFFER_SIZE)
		return __LINE__;
	worker_done(&worker);
	return 0;
}

static void test_grows(void **state)
{
	(void)state;
	assert_int_equal(check(), 0);
}

/* No memory may be locked: it is there all the same. */
static void test_without_locks(void **state)
{
	(void)state;
	int status;
	pid_t pid = fork();
	if (pid == 0) {
		struct rlimit none = { 0, 0 };
		if (setrlimit(RLIMIT_MEMLOCK, &none) < 0 || (geteuid() == 0 && setresuid(65534, 65534, 65534) < 0))
			_exit(1);
		_exit(check() ? 2 : 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_grows),
		cmocka_unit_test(test_without_locks),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
