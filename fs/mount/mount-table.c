#include "fs/mount/mount-table.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "fs/mount/proc-file.h"

#define TABLE_MAX ((size_t)256 << 20)

static bool is_octal(char byte)
{
	return byte >= '0' && byte <= '7';
}

/* Space, tab, newline and backslash stand as \ooo. */
static void unescape(char *text)
{
	char *to = text;
	for (const char *from = text; *from; to++) {
		if (from[0] == '\\' && is_octal(from[1]) && is_octal(from[2]) && is_octal(from[3])) {
			*to = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
			from += 4;
		} else {
			*to = *from++;
		}
	}
	*to = '\0';
}

/* Fields: id, parent, major:minor, root, mount point, options, optional fields..., "-", type, source, options. */
static int parse_line(char *line, const char *directory, MountEntry *ret_entry)
{
	char *state = NULL;
	char *fields[5];
	for (size_t i = 0; i < ELEMENTS(fields); i++) {
		fields[i] = strtok_r(i == 0 ? line : NULL, " ", &state);
		if (!fields[i])
			return -ENOENT;
	}
	unescape(fields[4]);
	if (strcmp(fields[4], directory) != 0)
		return -ENOENT;

	MountEntry entry;
	if (sscanf(fields[2], "%u:%u", &entry.major, &entry.minor) != 2)
		return -EINVAL;
	char *field;
	do {
		field = strtok_r(NULL, " ", &state);
	} while (field && strcmp(field, "-") != 0);
	char *type = strtok_r(NULL, " ", &state);
	if (!field || !type || strcmp(type, MOUNT_TABLE_TYPE) != 0)
		return -EINVAL;
	*ret_entry = entry;
	return 0;
}

int mount_table_search(char *table, const char *directory, MountEntry *ret_entry)
{
	int found = -ENOENT;
	char *state = NULL;
	/* Later lines lie on top of earlier ones. */
	for (char *line = strtok_r(table, "\n", &state); line; line = strtok_r(NULL, "\n", &state)) {
		int r = parse_line(line, directory, ret_entry);
		if (r != -ENOENT)
			found = r;
	}
	return found;
}

int mount_table_find(const char *directory, MountEntry *ret_entry)
{
	_cleanup_free_ char *table = NULL;
	size_t size;
	int r = proc_file_read("/proc/self/mountinfo", TABLE_MAX, &table, &size);
	if (r < 0)
		return r;
	return mount_table_search(table, directory, ret_entry);
}
