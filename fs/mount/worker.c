#include "fs/mount/worker.h"

#include <string.h>
#include <sys/mman.h>

static _Thread_local Worker *current;

int worker_init(Worker *worker)
{
	*worker = (Worker){ .slot = WORKER_NO_SLOT };
	void *buffer = mmap(NULL, WORKER_BUFFER_SIZE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (buffer == MAP_FAILED)
		return -ENOMEM;
	worker->buffer = buffer;
	(void)mlock(buffer, WORKER_BUFFER_SIZE);
	return fetch_reader_new(&worker->reader);
}

void worker_done(Worker *worker)
{
	worker->reader = fetch_reader_free(worker->reader);
	if (worker->buffer)
		(void)munmap(worker->buffer, WORKER_BUFFER_SIZE);
	worker->buffer = NULL;
}

Worker *worker_current(void)
{
	return current;
}

void worker_set_current(Worker *worker)
{
	current = worker;
}
