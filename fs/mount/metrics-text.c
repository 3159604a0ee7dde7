#include "fs/mount/metrics-text.h"

#include <inttypes.h>

#include "fs/base/cleanup.h"

static const char *const TIERS[FETCH_TIERS] = {
	[FETCH_TIER_DECODED] = "decoded",
	[FETCH_TIER_CACHE] = "cache",
	[FETCH_TIER_DONOR] = "donor",
	[FETCH_TIER_NETWORK] = "network",
};
static const char *const CLASSES[FETCH_CLASSES] = {
	[FETCH_DEMAND] = "demand",
	[FETCH_PROFILE] = "profile",
	[FETCH_BACKGROUND] = "background",
};

static void head(FILE *file, const char *name, const char *type, const char *help)
{
	fprintf(file, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* A label's value: backslash, quote and newline are escaped. */
static void label(FILE *file, const char *name, const char *value)
{
	fprintf(file, "%s=\"", name);
	for (const char *at = value ?: ""; *at; at++) {
		if (*at == '\n')
			fputs("\\n", file);
		else if (*at == '\\' || *at == '"')
			fprintf(file, "\\%c", *at);
		else
			fputc(*at, file);
	}
	fputc('"', file);
}

/* NAME{WHO="...",EXTRA="..."} */
static void series(FILE *file, const char *name, const char *who, const char *whose, const char *extra,
		   const char *value)
{
	fprintf(file, "%s{", name);
	label(file, who, whose);
	if (extra) {
		fputc(',', file);
		label(file, extra, value);
	}
	fputs("} ", file);
}

static void write_info(FILE *file, const MetricsText *text)
{
	head(file, "imgfs_mounts", "gauge", "Images mounted here that could be looked at.");
	fprintf(file, "imgfs_mounts %zu\n", text->mount_count);
	head(file, "imgfs_mount_info", "gauge", "What is mounted: reference, digest of the manifest, image ID.");
	for (size_t i = 0; i < text->mount_count; i++) {
		const MetricsMount *mount = &text->mounts[i];
		fputs("imgfs_mount_info{", file);
		label(file, "mount", mount->mount);
		fputc(',', file);
		label(file, "reference", mount->reference);
		fputc(',', file);
		label(file, "manifest", mount->manifest);
		fputc(',', file);
		label(file, "image", mount->image);
		fputs("} 1\n", file);
	}
}

typedef bool MountValue(const MetricsMount *mount, int64_t now, double *ret_value);

static bool value_needed(const MetricsMount *mount, _unused_ int64_t now, double *ret_value)
{
	*ret_value = (double)mount->needed;
	return mount->measured;
}

static bool value_present(const MetricsMount *mount, _unused_ int64_t now, double *ret_value)
{
	*ret_value = (double)mount->present;
	return mount->measured;
}

static bool value_sealed(const MetricsMount *mount, _unused_ int64_t now, double *ret_value)
{
	*ret_value = mount->sealed;
	return true;
}

static bool value_started(const MetricsMount *mount, _unused_ int64_t now, double *ret_value)
{
	*ret_value = mount->record ? (double)mount->record->head.began_real / 1000 : 0;
	return mount->record;
}

static bool value_reads(const MetricsMount *mount, _unused_ int64_t now, double *ret_value)
{
	*ret_value = mount->record ? (double)mount->record->reads : 0;
	return mount->record;
}

static bool value_read_bytes(const MetricsMount *mount, _unused_ int64_t now, double *ret_value)
{
	*ret_value = mount->record ? (double)mount->record->read_bytes : 0;
	return mount->record;
}

static bool value_failures(const MetricsMount *mount, _unused_ int64_t now, double *ret_value)
{
	*ret_value = mount->record ? (double)mount->record->failures : 0;
	return mount->record;
}

static bool value_profile(const MetricsMount *mount, _unused_ int64_t now, double *ret_value)
{
	*ret_value = mount->record ? (double)mount->record->profile_bytes : 0;
	return mount->record;
}

static bool value_stalled(const MetricsMount *mount, int64_t now, double *ret_value)
{
	unsigned count = 0;
	uint64_t longest;
	if (mount->record)
		metrics_stalled(mount->record, now, &count, &longest);
	*ret_value = count;
	return mount->record;
}

static bool value_longest(const MetricsMount *mount, int64_t now, double *ret_value)
{
	unsigned count;
	uint64_t longest = 0;
	if (mount->record)
		metrics_stalled(mount->record, now, &count, &longest);
	*ret_value = (double)longest / 1e6;
	return mount->record;
}

static const struct {
	const char *name, *type, *help;
	MountValue *value;
} MOUNT_FAMILIES[] = {
	{ "imgfs_needed_bytes", "gauge", "Bytes of the image's chunks.", value_needed },
	{ "imgfs_present_bytes", "gauge", "Of these, bytes that are on this node.", value_present },
	{ "imgfs_sealed", "gauge", "1: complete, checked and kept, usable without its source.", value_sealed },
	{ "imgfs_mounted_time_seconds", "gauge", "When the image was mounted, since 1970.", value_started },
	{ "imgfs_reads_total", "counter", "Reads that reached the server: the kernel's page cache answers others.",
	  value_reads },
	{ "imgfs_read_bytes_total", "counter", "Bytes of files they gave.", value_read_bytes },
	{ "imgfs_read_failures_total", "counter", "Reads that ended with an error for their reader.", value_failures },
	{ "imgfs_profile_bytes_total", "counter", "Bytes that start-up profiles asked for.", value_profile },
	{ "imgfs_stalled_reads", "gauge", "Readers that wait for the network now.", value_stalled },
	{ "imgfs_stalled_longest_seconds", "gauge", "How long the first of them has waited.", value_longest },
};

void metrics_stalled(const StartRecord *record, int64_t now, unsigned *ret_count, uint64_t *ret_longest)
{
	uint64_t at = now > record->head.began ? (uint64_t)(now - record->head.began) : 0;
	*ret_count = 0;
	*ret_longest = 0;
	for (size_t i = 0; i < START_RECORD_WAITING; i++) {
		uint64_t since = record->waiting[i].since;
		if (since == 0)
			continue;
		++*ret_count;
		if (at >= since && at - since + 1 > *ret_longest)
			*ret_longest = at - since + 1;
	}
}

static void write_mounts(FILE *file, const MetricsText *text)
{
	for (size_t i = 0; i < ELEMENTS(MOUNT_FAMILIES); i++) {
		head(file, MOUNT_FAMILIES[i].name, MOUNT_FAMILIES[i].type, MOUNT_FAMILIES[i].help);
		for (size_t j = 0; j < text->mount_count; j++) {
			double value;
			if (!MOUNT_FAMILIES[i].value(&text->mounts[j], text->now, &value))
				continue;
			series(file, MOUNT_FAMILIES[i].name, "mount", text->mounts[j].mount, NULL, NULL);
			fprintf(file, "%.15g\n", value);
		}
	}
	head(file, "imgfs_chunks_total", "counter", "Chunks that reads used, by where they came from.");
	for (size_t j = 0; j < text->mount_count; j++) {
		for (size_t tier = 0; text->mounts[j].record && tier < FETCH_TIERS; tier++) {
			series(file, "imgfs_chunks_total", "mount", text->mounts[j].mount, "tier", TIERS[tier]);
			fprintf(file, "%" PRIu64 "\n", text->mounts[j].record->chunks[tier]);
		}
	}
}

typedef uint64_t ServerValue(const ServerMetrics *metrics);

#define SERVER_VALUE(name, field)                                   \
	static uint64_t server_##name(const ServerMetrics *metrics) \
	{                                                           \
		return metrics->field;                              \
	}
SERVER_VALUE(bytes, fetch.bytes)
SERVER_VALUE(chunks, fetch.chunks)
SERVER_VALUE(copies, fetch.copies)
SERVER_VALUE(retries, fetch.retries)
SERVER_VALUE(verify_failures, fetch.verify_failures)
SERVER_VALUE(disk_failures, fetch.disk_failures)
SERVER_VALUE(decoded_failures, fetch.decoded_failures)
SERVER_VALUE(evicted, fetch.evicted)
SERVER_VALUE(taken_over, taken_over)

static uint64_t server_takeovers(const ServerMetrics *metrics)
{
	return metrics->servers > 0 ? metrics->servers - 1 : 0;
}

static const struct {
	const char *name, *help;
	ServerValue *value;
} SERVER_FAMILIES[] = {
	{ "imgfs_fetched_bytes_total", "Bytes of bodies that came from the network.", server_bytes },
	{ "imgfs_fetched_chunks_total", "Chunks that came and were right.", server_chunks },
	{ "imgfs_copied_chunks_total", "Chunks copied from other images of this node.", server_copies },
	{ "imgfs_retries_total", "Requests and chunks that were tried again.", server_retries },
	{ "imgfs_verify_failures_total", "Chunks that came with another SHA-256 than the index says.",
	  server_verify_failures },
	{ "imgfs_cache_write_failures_total", "Chunks that the cache could not take.", server_disk_failures },
	{ "imgfs_decoded_failures_total", "Reads that found a decoded copy damaged.", server_decoded_failures },
	{ "imgfs_evictions_total", "Chunks that went to keep the cache's quota.", server_evicted },
	{ "imgfs_takeovers_total", "Servers started in the place of another.", server_takeovers },
	{ "imgfs_takeover_requests_total", "Requests they found unanswered.", server_taken_over },
};

static void write_histogram(FILE *file, const char *name, const MetricsServer *server, const char *extra,
			    const char *value, const Histogram *histogram)
{
	char part[64];
	uint64_t count = 0;
	(void)snprintf(part, sizeof(part), "%s_bucket", name);
	for (size_t i = 0; i <= HISTOGRAM_BOUNDS; i++) {
		count += histogram->counts[i];
		fprintf(file, "%s{", part);
		label(file, "server", server->server);
		fputc(',', file);
		label(file, extra, value);
		if (i < HISTOGRAM_BOUNDS)
			fprintf(file, ",le=\"%g\"} %" PRIu64 "\n", histogram_bounds[i] / 1e6, count);
		else
			fprintf(file, ",le=\"+Inf\"} %" PRIu64 "\n", count);
	}
	(void)snprintf(part, sizeof(part), "%s_sum", name);
	series(file, part, "server", server->server, extra, value);
	fprintf(file, "%.6f\n", (double)histogram->sum / 1e6);
	(void)snprintf(part, sizeof(part), "%s_count", name);
	series(file, part, "server", server->server, extra, value);
	fprintf(file, "%" PRIu64 "\n", count);
}

static uint64_t histogram_count(const Histogram *histogram)
{
	uint64_t count = 0;
	for (size_t i = 0; i <= HISTOGRAM_BOUNDS; i++)
		count += histogram->counts[i];
	return count;
}

static void write_fetches(FILE *file, const MetricsServer *server)
{
	const FetchMetrics *fetch = &server->metrics->fetch;
	for (size_t i = 0; i < FETCH_CLASSES; i++) {
		const struct {
			const char *result;
			uint64_t count;
		} results[] = {
			{ "ok", histogram_count(&fetch->seconds[i]) },
			{ "failed", fetch->failures[i] },
			{ "cut", fetch->abandoned[i] },
		};
		for (size_t j = 0; j < ELEMENTS(results); j++) {
			fputs("imgfs_fetches_total{", file);
			label(file, "server", server->server);
			fprintf(file, ",class=\"%s\",result=\"%s\"} %" PRIu64 "\n", CLASSES[i], results[j].result,
				results[j].count);
		}
	}
}

static void write_servers(FILE *file, const MetricsText *text)
{
	for (size_t i = 0; i < ELEMENTS(SERVER_FAMILIES); i++) {
		head(file, SERVER_FAMILIES[i].name, "counter", SERVER_FAMILIES[i].help);
		for (size_t j = 0; j < text->server_count; j++) {
			series(file, SERVER_FAMILIES[i].name, "server", text->servers[j].server, NULL, NULL);
			fprintf(file, "%" PRIu64 "\n", SERVER_FAMILIES[i].value(text->servers[j].metrics));
		}
	}
	head(file, "imgfs_fetches_total", "counter",
	     "Requests to sources that have ended, by the class they were begun for and how they ended.");
	for (size_t j = 0; j < text->server_count; j++)
		write_fetches(file, &text->servers[j]);
	head(file, "imgfs_fetch_seconds", "histogram", "From a request's start to its end, of those that ended well.");
	for (size_t j = 0; j < text->server_count; j++) {
		for (size_t i = 0; i < FETCH_CLASSES; i++)
			write_histogram(file, "imgfs_fetch_seconds", &text->servers[j], "class", CLASSES[i],
					&text->servers[j].metrics->fetch.seconds[i]);
	}
	head(file, "imgfs_read_seconds", "histogram",
	     "From a read to its answer, by whether it waited for the network.");
	for (size_t j = 0; j < text->server_count; j++) {
		const ServerMetrics *metrics = text->servers[j].metrics;
		write_histogram(file, "imgfs_read_seconds", &text->servers[j], "waited", "no", &metrics->at_once);
		write_histogram(file, "imgfs_read_seconds", &text->servers[j], "waited", "yes", &metrics->waited);
	}
}

void metrics_text_write(FILE *file, const MetricsText *text)
{
	write_info(file, text);
	write_mounts(file, text);
	write_servers(file, text);
}
