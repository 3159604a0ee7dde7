#include "fs/base/log.h"

#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

#define LOST_MAX    32u /* of the field that says it, and the line's end */
#define PATIENCE_MS 100 /* for a reader that is slow for once */

static const char *log_program = "imgfs";
static LogLevel log_level = LOG_LEVEL_INFO;
static atomic_uint lost_records;

void log_open(const char *program, LogLevel level)
{
	log_program = program;
	log_level = level;
}

/* A terminal may be stopped, and a pipe full whose reader hangs. */
static bool is_taken(void)
{
	static atomic_bool stuck;
	struct pollfd out = { .fd = STDERR_FILENO, .events = POLLOUT };
	bool taken = poll(&out, 1, atomic_load(&stuck) ? 0 : PATIENCE_MS) != 0;
	atomic_store(&stuck, !taken);
	return taken;
}

void log_write(LogLevel level, const char *format, ...)
{
	static const char *const names[] = { "error", "warning", "info", "debug" };
	if (level > log_level)
		return;

	char line[2048];
	struct timespec now;
	(void)clock_gettime(CLOCK_REALTIME, &now);
	struct tm utc;
	(void)gmtime_r(&now.tv_sec, &utc);
	size_t used = strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%S", &utc);
	int length = snprintf(line + used, sizeof(line) - used, ".%03ldZ %s %s ", now.tv_nsec / 1000000, log_program,
			      names[level]);
	used += (size_t)length;

	va_list args;
	va_start(args, format);
	length = vsnprintf(line + used, sizeof(line) - used - 1, format, args);
	va_end(args);
	if (length < 0)
		return;
	size_t text = used;
	used += (size_t)length < sizeof(line) - used - 1 ? (size_t)length : sizeof(line) - used - 2;
	/* Names from outside may hold anything; a record stays one line, and a terminal is not steered by it. */
	for (; text < used; text++)
		if ((unsigned char)line[text] < 0x20 || line[text] == 0x7f)
			line[text] = '?';
	if (!is_taken()) {
		(void)atomic_fetch_add(&lost_records, 1);
		return;
	}
	unsigned lost = atomic_exchange(&lost_records, 0);
	if (lost > 0) {
		if (used > sizeof(line) - LOST_MAX)
			used = sizeof(line) - LOST_MAX;
		used += (size_t)snprintf(line + used, LOST_MAX, " lost=%u", lost);
	}
	line[used++] = '\n';
	/* One write a record, so that records of several threads and processes do not mix. */
	ssize_t written = write(STDERR_FILENO, line, used);
	(void)written;
}
