#include "fs/mount/server-metrics.h"

#include "fs/mount/login-box.h"

#include <errno.h>
#include <sys/mman.h>

int server_metrics_create(int *ret_fd)
{
	return shared_memory_create(SERVER_METRICS_NAME, SERVER_METRICS_MAGIC, SERVER_METRICS_VERSION,
				    sizeof(LoginBoxes), ret_fd);
}

int server_metrics_open(int fd, ServerMetrics **ret_metrics)
{
	void *memory;
	if (fd <= 0 ||
	    shared_memory_map(fd, SERVER_METRICS_MAGIC, SERVER_METRICS_VERSION, sizeof(ServerMetrics), &memory) < 0) {
		memory = mmap(NULL, sizeof(ServerMetrics), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (memory == MAP_FAILED)
			return -ENOMEM;
	}
	*ret_metrics = memory;
	return 0;
}

void server_metrics_close(ServerMetrics *metrics)
{
	if (metrics)
		(void)munmap(metrics, sizeof(*metrics));
}

int server_metrics_load(int fd, ServerMetrics **ret_copy)
{
	void *copy;
	int r = shared_memory_copy(fd, SERVER_METRICS_MAGIC, SERVER_METRICS_VERSION, sizeof(ServerMetrics), &copy);
	if (r == 0)
		*ret_copy = copy;
	return r;
}
