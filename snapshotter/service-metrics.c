/* Counters of the lazy part, as a file that Prometheus's node exporter collects (its textfile collector). */
#include <fcntl.h>
#include <string.h>

#include "fs/base/fd.h"
#include "fs/base/log.h"
#include "snapshotter/service-private.h"

static void write_counter(FILE *file, const char *name, const char *help, unsigned long long value)
{
	(void)fprintf(file, "# HELP %s %s\n# TYPE %s counter\n%s %llu\n", name, help, name, name, value);
}

static void write_all(FILE *file, Service *service)
{
	static const char layers[] = "imgfs_snapshotter_layers_total";
	(void)fprintf(file, "# HELP %s Layers asked for by their chain, by what became of them.\n# TYPE %s counter\n",
		      layers, layers);
	for (LazyReason i = 0; i < LAZY_REASONS; i++)
		(void)fprintf(file, "%s{outcome=\"%s\"} %llu\n", layers, lazy_reason_name(i),
			      (unsigned long long)atomic_load(&service->lazy_outcomes[i]));
	write_counter(file, "imgfs_snapshotter_unavailable_total", "Calls that found a lazy parent unreachable.",
		      atomic_load(&service->lazy_unreachable));
	write_counter(file, "imgfs_snapshotter_let_go_total", "Trees of lazy snapshots that were let go of.",
		      atomic_load(&service->lazy_removed));
}

/* Through one temporary, so that what a crash leaves is taken away by the next write. The lock keeps their order, too. */
static int replace_file(const char *path, const char *text, size_t size)
{
	_cleanup_free_ char *temporary = NULL;
	if (asprintf(&temporary, "%s.new", path) < 0)
		return -ENOMEM;
	_cleanup_close_ int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
	int r = fd < 0 ? -errno : fd_write_all(fd, text, size);
	return r == 0 && rename(temporary, path) < 0 ? -errno : r;
}

static int write_file(Service *service)
{
	_cleanup_free_ char *text = NULL;
	size_t size;
	FILE *file = open_memstream(&text, &size);
	if (!file)
		return -ENOMEM;
	write_all(file, service);
	return fclose(file) == 0 ? replace_file(service->metrics, text, size) : -ENOMEM;
}

void service_write_metrics(Service *service)
{
	if (!service->metrics)
		return;
	(void)pthread_mutex_lock(&service->metrics_lock);
	int r = write_file(service);
	(void)pthread_mutex_unlock(&service->metrics_lock);
	if (r < 0)
		log_warning("the metrics cannot be written file=%s reason=\"%s\"", service->metrics, strerror(-r));
}
