/*
 * The log of a process: one line a record on standard error, `level message key=value...`. Only mains and
 * the boundaries named in docs/architecture.md call it; rooms below return errors and stay silent.
 * Thread-safe; never fails. Does not wait for who reads it: records that nobody takes are dropped, and the next one that can be written says how many
 * (`lost=`). Mounts are served by the processes that log.
 */
#pragma once

#include "fs/base/cleanup.h"

typedef enum LogLevel { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG } LogLevel;

/* `program` (static text) opens each line; records above `level` are dropped. Call once, before threads. */
void log_open(const char *program, LogLevel level);

/* One record; the text should end in structured fields, as in `"fetch failed digest=%s off=%" PRIu64`. */
void log_write(LogLevel level, const char *format, ...) _printf_(2, 3);

#define log_error(...)   log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...)    log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)   log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)
