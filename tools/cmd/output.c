#include "tools/cmd/output.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define BAR_WIDTH       30
#define REDRAW_INTERVAL 100 /* milliseconds */
#define CLEAR_LINE      "\r\033[K"

char *output_size(uint64_t bytes, char ret_text[static OUTPUT_SIZE_TEXT])
{
	static const char *const units[] = { "B", "kB", "MB", "GB", "TB", "PB", "EB" };
	if (bytes < 1000) {
		(void)snprintf(ret_text, OUTPUT_SIZE_TEXT, "%" PRIu64 " B", bytes);
		return ret_text;
	}
	double value = (double)bytes;
	size_t unit = 0;
	/* 999.5 and above would print as 1000. */
	while (value >= 999.5 && unit + 1 < ELEMENTS(units)) {
		value /= 1000;
		unit++;
	}
	(void)snprintf(ret_text, OUTPUT_SIZE_TEXT, "%.*f %s", value < 9.95 ? 1 : 0, value, units[unit]);
	return ret_text;
}

char *output_age(time_t then, time_t now, char ret_text[static OUTPUT_AGE_TEXT])
{
	long long seconds = then < now ? (long long)(now - then) : 0;
	if (seconds < 60)
		(void)snprintf(ret_text, OUTPUT_AGE_TEXT, "%lld s", seconds);
	else if (seconds < 3600)
		(void)snprintf(ret_text, OUTPUT_AGE_TEXT, "%lld min", seconds / 60);
	else if (seconds < 2 * 86400)
		(void)snprintf(ret_text, OUTPUT_AGE_TEXT, "%lld h", seconds / 3600);
	else
		(void)snprintf(ret_text, OUTPUT_AGE_TEXT, "%lld days", seconds / 86400);
	return ret_text;
}

int output_json(json_t *json)
{
	if (!json)
		return -ENOMEM;
	int r = json_dumpf(json, stdout, JSON_INDENT(2));
	json_decref(json);
	return r < 0 || putchar('\n') == EOF ? -EIO : 0;
}

json_t *output_path_json(const char *path)
{
	json_t *string = json_string(path);
	if (string)
		return string;
	size_t used = 0;
	_cleanup_free_ char *text = malloc(4 * strlen(path) + 1);
	if (!text)
		return NULL;
	for (const char *at = path; *at; at++)
		used += (size_t)sprintf(text + used, (unsigned char)*at < 0x80 ? "%c" : "\\x%02x", (unsigned char)*at);
	return json_string(text);
}

int output_text(FILE *file, const char *text)
{
	int count = 0;
	for (; *text; text++) {
		unsigned char byte = (unsigned char)*text, next = (unsigned char)text[1];
		/* U+0080 to U+009F are control characters as well. */
		if (byte == 0xc2 && next >= 0x80 && next < 0xa0) {
			count += fprintf(file, "\\x%02x\\x%02x", byte, next);
			text++;
		} else {
			count += fprintf(file, byte < 0x20 || byte == 0x7f ? "\\x%02x" : "%c", byte);
		}
	}
	return count;
}

static int64_t milliseconds_between(const struct timespec *from, const struct timespec *to)
{
	return (int64_t)(to->tv_sec - from->tv_sec) * 1000 + (to->tv_nsec - from->tv_nsec) / 1000000;
}

void output_progress_start(OutputProgress *progress, const char *label, uint64_t total, bool quiet)
{
	*progress = (OutputProgress){ .label = label, .total = total, .active = !quiet && isatty(STDERR_FILENO) };
	(void)clock_gettime(CLOCK_MONOTONIC, &progress->started);
}

void output_progress_update(OutputProgress *progress, uint64_t done)
{
	struct timespec now;
	if (!progress->active)
		return;
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	if (progress->shown && milliseconds_between(&progress->drawn, &now) < REDRAW_INTERVAL)
		return;
	progress->drawn = now;
	progress->shown = true;

	char size[OUTPUT_SIZE_TEXT], rate[OUTPUT_SIZE_TEXT], bar[BAR_WIDTH + 1];
	int64_t elapsed = milliseconds_between(&progress->started, &now);
	(void)output_size(done, size);
	(void)output_size(elapsed > 0 ? done * 1000 / (uint64_t)elapsed : 0, rate);
	if (progress->total == 0) {
		fprintf(stderr, CLEAR_LINE "%s  %s  %s/s", progress->label, size, rate);
		return;
	}
	uint64_t part = done < progress->total ? done : progress->total;
	int filled = (int)((double)part / (double)progress->total * BAR_WIDTH);
	memset(bar, ' ', BAR_WIDTH);
	memset(bar, '#', (size_t)filled);
	bar[BAR_WIDTH] = '\0';
	fprintf(stderr, CLEAR_LINE "%s [%s] %3d%%  %s  %s/s", progress->label, bar,
		(int)((double)part / (double)progress->total * 100), size, rate);
}

void output_progress_clear(OutputProgress *progress)
{
	if (progress->shown)
		fputs(CLEAR_LINE, stderr);
	progress->shown = false;
}

void output_progress_end(OutputProgress *progress)
{
	output_progress_clear(progress);
	progress->active = false;
}
