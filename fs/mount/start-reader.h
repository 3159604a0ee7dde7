/* Who a thread of this machine is, by /proc: for the record of a start. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "fs/base/cleanup.h"

/*
 * Looks a thread up in the pid namespace of this process: its process, the name of its program, its cgroup. With the hierarchies of
 * version 1 the longest of its paths counts, which is the one that a container has. Reads two files of /proc. Errors: -ESRCH.
 */
int start_reader_look(uint32_t thread, uint32_t *ret_process, char *ret_command, size_t command_size, char *ret_group,
		      size_t group_size) _must_check_;

/* The cgroup in the text of a /proc/PID/cgroup; of one that is too long the end. Errors: -ESRCH (there is none). */
int start_reader_group(const char *text, char *ret_group, size_t size) _must_check_;

/* Name and process from the text of a /proc/PID/status. Errors: -ESRCH. */
int start_reader_status(const char *text, uint32_t *ret_process, char *ret_command, size_t size) _must_check_;
