#include "fs/mount/worker.h"

#include <string.h>
#include <sys/mman.h>

#define BUFFER_FIRST ((size_t)64 << 10) /* metadata, directories and small files */

static _Thread_local Worker *current;

/* They are there once they were written to, whether they may be locked or not. */
static void prepare_buffer(Worker *worker, size_t size)
{
	memset(worker->buffer + worker->buffer_ready, 0, size - worker->buffer_ready);
	(void)mlock(worker->buffer, size);
	worker->buffer_ready = size;
}

int worker_init(Worker *worker)
{
	*worker = (Worker){ .slot = WORKER_NO_SLOT };
	void *buffer = mmap(NULL, WORKER_BUFFER_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (buffer == MAP_FAILED)
		return -ENOMEM;
	worker->buffer = buffer;
	prepare_buffer(worker, BUFFER_FIRST);
	return fetch_reader_new(&worker->reader);
}

void worker_done(Worker *worker)
{
	worker->reader = fetch_reader_free(worker->reader);
	if (worker->buffer)
		(void)munmap(worker->buffer, WORKER_BUFFER_SIZE);
	worker->buffer = NULL;
}

uint8_t *worker_buffer(Worker *worker, size_t size)
{
	size_t ready = worker->buffer_ready;
	while (ready < size && ready < WORKER_BUFFER_SIZE)
		ready *= 2;
	if (ready > worker->buffer_ready)
		prepare_buffer(worker, ready);
	return worker->buffer;
}

Worker *worker_current(void)
{
	return current;
}

void worker_set_current(Worker *worker)
{
	current = worker;
}
