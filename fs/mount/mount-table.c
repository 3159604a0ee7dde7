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
	char *source = strtok_r(NULL, " ", &state);
	if (!field || !type || !source || strcmp(type, MOUNT_TABLE_TYPE) != 0)
		return -EINVAL;
	unescape(source);
	unescape(fields[3]);
	(void)snprintf(entry.root, sizeof(entry.root), "%s", fields[3]);
	(void)snprintf(entry.source, sizeof(entry.source), "%s", source);
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

int mount_table_each(int (*each)(void *arg, const char *source), void *arg)
{
	static const char type[] = " - " MOUNT_TABLE_TYPE " ";
	_cleanup_free_ char *table = NULL;
	char *state = NULL;
	size_t size;
	int r = proc_file_read("/proc/self/mountinfo", TABLE_MAX, &table, &size);
	if (r < 0)
		return r;
	for (char *line = strtok_r(table, "\n", &state); r >= 0 && line; line = strtok_r(NULL, "\n", &state)) {
		char *source = strstr(line, type); /* a space in a path stands as \040 */
		if (!source)
			continue;
		source += strlen(type);
		source[strcspn(source, " ")] = '\0';
		unescape(source);
		r = each(arg, source);
	}
	return r < 0 ? r : 0;
}

/* The path with all but its last component resolved. */
static int resolve_parent(const char *directory, char ret_path[static PATH_MAX])
{
	_cleanup_free_ char *copy = strdup(directory);
	if (!copy)
		return -ENOMEM;
	size_t length = strlen(copy);
	while (length > 1 && copy[length - 1] == '/')
		copy[--length] = '\0';
	char *slash = strrchr(copy, '/');
	const char *name = slash ? slash + 1 : copy;
	if (name[0] == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return realpath(directory, ret_path) ? 0 : -errno;

	char parent[PATH_MAX];
	const char *above = slash == copy ? "/" : slash ? copy : ".";
	if (slash)
		*slash = '\0';
	if (!realpath(above, parent))
		return -errno;
	int written = snprintf(ret_path, PATH_MAX, "%s/%s", strcmp(parent, "/") == 0 ? "" : parent, name);
	return written < PATH_MAX ? 0 : -ENAMETOOLONG;
}

int mount_table_path(const char *directory, char ret_path[static PATH_MAX])
{
	MountEntry entry;
	int r = resolve_parent(directory, ret_path);
	if (r < 0)
		return r;
	/* Nothing is mounted there, so that the last component can be looked at: it may be a symbolic link. */
	if (mount_table_find(ret_path, &entry) == -ENOENT)
		return realpath(directory, ret_path) ? 0 : -errno;
	return 0;
}
