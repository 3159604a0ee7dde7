#include "fs/mount/start-reader.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fs/mount/proc-file.h"

#define TEXT_MAX 65536u

/* cgroups(7): "hierarchy:controllers:path". */
int start_reader_group(const char *text, char *ret_group, size_t size)
{
	const char *best = NULL;
	size_t best_length = 0;
	for (const char *line = text; *line;) {
		size_t length = strcspn(line, "\n");
		const char *path = memchr(line, ':', length);
		path = path ? memchr(path + 1, ':', length - (size_t)(path + 1 - line)) : NULL;
		size_t path_length = path ? length - (size_t)(path + 1 - line) : 0;
		if (path_length > best_length) {
			best = path + 1;
			best_length = path_length;
		}
		line += length + (line[length] == '\n');
	}
	if (!best)
		return -ESRCH;
	if (best_length > size - 1) {
		best += best_length - (size - 1);
		best_length = size - 1;
	}
	memcpy(ret_group, best, best_length);
	ret_group[best_length] = '\0';
	return 0;
}

int start_reader_status(const char *text, uint32_t *ret_process, char *ret_command, size_t size)
{
	const char *process = strstr(text, "\nTgid:");
	if (strncmp(text, "Name:\t", 6) != 0 || !process || sscanf(process + 1, "Tgid: %u", ret_process) != 1)
		return -ESRCH;
	size_t length = strcspn(text + 6, "\n");
	(void)snprintf(ret_command, size, "%.*s", (int)length, text + 6);
	return 0;
}

int start_reader_look(uint32_t thread, uint32_t *ret_process, char *ret_command, size_t command_size, char *ret_group,
		      size_t group_size)
{
	char path[64];
	_cleanup_free_ char *status = NULL, *groups = NULL;
	size_t size;
	(void)snprintf(path, sizeof(path), "/proc/%u/status", thread);
	if (thread == 0 || proc_file_read(path, TEXT_MAX, &status, &size) < 0)
		return -ESRCH;
	(void)snprintf(path, sizeof(path), "/proc/%u/cgroup", thread);
	if (proc_file_read(path, TEXT_MAX, &groups, &size) < 0)
		return -ESRCH;
	int r = start_reader_status(status, ret_process, ret_command, command_size);
	return r < 0 ? r : start_reader_group(groups, ret_group, group_size);
}
