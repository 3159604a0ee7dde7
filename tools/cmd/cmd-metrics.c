/* imgfs metrics: what the mounts of this machine count, as Prometheus reads it. */
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "fs/base/fd.h"
#include "fs/mount/metrics-text.h"
#include "fs/mount/mount-observe.h"
#include "tools/cmd/metrics-listen.h"
#include "tools/cmd/verbs.h"

#define VERB "metrics"

enum { OPTION_OUTPUT = VERB_OPTION_LONG, OPTION_LISTEN };

const VerbOption cmd_metrics_options[] = {
	{ "output", OPTION_OUTPUT, "FILE", "put it there at once and whole, for node_exporter's textfile collector" },
	{ "listen", OPTION_LISTEN, "ADDR:PORT", "answer GET /metrics there: a loopback address, or unix:PATH" },
	{ 0 },
};

/* Takes nothing over: the text's strings are the observed mounts'. */
static int write_text(const MountsObserved *observed, FILE *file)
{
	_cleanup_free_ MetricsMount *mounts = calloc(observed->count + 1, sizeof(*mounts));
	_cleanup_free_ MetricsServer *servers = calloc(observed->count + observed->daemon_count + 1, sizeof(*servers));
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
	for (size_t i = 0; i < observed->daemon_count; i++)
		servers[text.server_count++] = (MetricsServer){ .server = observed->daemons[i].directory,
								.metrics = observed->daemons[i].metrics };
	metrics_text_write(file, &text);
	return ferror(file) ? -EIO : 0;
}

/* A collector that reads the file meanwhile finds the old one or the new one. */
static int put_file(const char *path, const char *text, size_t size, Error *error)
{
	int r = fd_replace_file(AT_FDCWD, path, text, size, 0644);
	return r < 0 ? error_set(error, r, "%s cannot be written: %s", path, error_text(NULL, r)) : 0;
}

/* Says how many mounts were left out, too. */
static int make(char **ret_text, size_t *ret_size, size_t *ret_hidden)
{
	MountsObserved observed = { 0 };
	int r = mounts_observe(true, &observed);
	if (r < 0)
		return r;
	FILE *file = open_memstream(ret_text, ret_size);
	r = file ? write_text(&observed, file) : -ENOMEM;
	if (file && fclose(file) != 0)
		r = -ENOMEM;
	if (file && r < 0)
		free(*ret_text);
	*ret_hidden = observed.hidden;
	mounts_observed_done(&observed);
	return r;
}

static int make_text(char **ret_text, size_t *ret_size)
{
	size_t hidden;
	return make(ret_text, ret_size, &hidden);
}

static int run(const char *output, Error *error)
{
	_cleanup_free_ char *text = NULL;
	size_t size = 0, hidden = 0;
	int r = make(&text, &size, &hidden);
	if (r < 0) {
		text = NULL;
		return error_set(error, r, "the mounts of this machine cannot be looked at: %s", error_text(NULL, r));
	}
	if (hidden > 0)
		fprintf(stderr, "imgfs metrics: %zu mounts of other users were left out; root sees them\n", hidden);
	if (output)
		return put_file(output, text, size, error);
	return fwrite(text, 1, size, stdout) == size && fflush(stdout) == 0
		       ? 0
		       : error_set(error, -EIO, "standard output cannot be written to");
}

int cmd_metrics(int argc, char **argv)
{
	Error error = { 0 };
	const char *output = NULL, *where = NULL;
	for (int id; (id = verb_getopt(argc, argv, cmd_metrics_options)) != -1;) {
		if (id == OPTION_OUTPUT)
			output = optarg;
		else if (id == OPTION_LISTEN)
			where = optarg;
		else
			return VERB_USAGE;
	}
	if (output && where)
		return verb_usage_error(VERB, "--output and --listen are two ways: give one");
	if (optind < argc)
		return verb_usage_error(VERB, "it takes no argument such as %s", argv[optind]);
	int r = where ? metrics_listen(where, make_text, &error) : run(output, &error);
	if (r == -EINVAL && where)
		return verb_usage_error(VERB, "--listen: %s", error.message);
	return r < 0 ? verb_fail(VERB, r, &error) : VERB_SUCCESS;
}
