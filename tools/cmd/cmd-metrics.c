/* imgfs metrics: what the mounts of this machine count, as Prometheus reads it. */
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "fs/base/fd.h"
#include "fs/mount/metrics-text.h"
#include "fs/mount/mount-observe.h"
#include "tools/cmd/verbs.h"

#define VERB "metrics"

enum { OPTION_OUTPUT = VERB_OPTION_LONG };

const VerbOption cmd_metrics_options[] = {
	{ "output", OPTION_OUTPUT, "FILE", "put it there at once and whole, for node_exporter's textfile collector" },
	{ 0 },
};

/* Takes nothing over: the text's strings are the observed mounts'. */
static int write_text(const MountsObserved *observed, FILE *file)
{
	_cleanup_free_ MetricsMount *mounts = calloc(observed->count + 1, sizeof(*mounts));
	_cleanup_free_ MetricsServer *servers = calloc(observed->count + 1, sizeof(*servers));
	if (!mounts || !servers)
		return -ENOMEM;
	MetricsText text = {
		.mounts = mounts, .mount_count = observed->count, .servers = servers, .now = shared_memory_clock()
	};
	for (size_t i = 0; i < observed->count; i++) {
		const MountObserved *from = &observed->items[i];
		mounts[i] = (MetricsMount){
			.mount = from->directory,
			.reference = from->reference,
			.manifest = from->plan.manifest,
			.image = from->plan.config,
			.record = from->record,
			.measured = from->measured,
			.sealed = from->sealed,
			.needed = from->needed,
			.present = from->present,
		};
		if (from->metrics)
			servers[text.server_count++] =
				(MetricsServer){ .server = from->directory, .metrics = from->metrics };
	}
	metrics_text_write(file, &text);
	return ferror(file) ? -EIO : 0;
}

/* A collector that reads the file meanwhile finds the old one or the new one. */
static int put_file(const char *path, const char *text, size_t size, Error *error)
{
	int r = fd_replace_file(AT_FDCWD, path, text, size, 0644);
	return r < 0 ? error_set(error, r, "%s cannot be written: %s", path, error_text(NULL, r)) : 0;
}

static int run(const char *output, Error *error)
{
	MountsObserved observed = { 0 };
	_cleanup_free_ char *text = NULL;
	size_t size = 0;
	int r = mounts_observe(NULL, true, &observed);
	if (r < 0)
		return error_set(error, r, "the mounts of this machine cannot be looked at: %s", error_text(NULL, r));
	FILE *file = open_memstream(&text, &size);
	r = file ? write_text(&observed, file) : -ENOMEM;
	if (file && fclose(file) != 0)
		r = -ENOMEM;
	if (observed.hidden > 0)
		fprintf(stderr, "imgfs metrics: %zu mounts of other users were left out; root sees them\n",
			observed.hidden);
	mounts_observed_done(&observed);
	if (r < 0)
		return error_set(error, r, "out of memory");
	if (output)
		return put_file(output, text, size, error);
	return fwrite(text, 1, size, stdout) == size && fflush(stdout) == 0
		       ? 0
		       : error_set(error, -EIO, "standard output cannot be written to");
}

int cmd_metrics(int argc, char **argv)
{
	Error error = { 0 };
	const char *output = NULL;
	for (int id; (id = verb_getopt(argc, argv, cmd_metrics_options)) != -1;) {
		if (id != OPTION_OUTPUT)
			return VERB_USAGE;
		output = optarg;
	}
	if (optind < argc)
		return verb_usage_error(VERB, "it takes no argument such as %s", argv[optind]);
	int r = run(output, &error);
	return r < 0 ? verb_fail(VERB, r, &error) : VERB_SUCCESS;
}
