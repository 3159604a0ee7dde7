#include "fs/node/node-bind.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "fs/base/fd.h"
#include "fs/mount/mount-table.h"
#include "fs/mount/proc-file.h"

#define TABLE_MAX  ((size_t)256 << 20)
#define IMGFS_TYPE " - " MOUNT_TABLE_TYPE " "

int node_bind_check(const char *directory, char ret_path[static PATH_MAX], Error *error)
{
	struct stat status;
	MountEntry entry;
	int r = mount_table_path(directory, ret_path);
	if (r == 0 && mount_table_find(ret_path, &entry) == 0)
		return error_set(error, -EBUSY, "an image is mounted on %s; unmount it first: imgfs umount %s",
				 ret_path, ret_path);
	if (r == 0 && stat(ret_path, &status) < 0)
		r = -errno;
	if (r < 0)
		return error_set(error, r, "cannot mount on %s: %s", directory, strerror(-r));
	if (!S_ISDIR(status.st_mode))
		return error_set(error, -ENOTDIR, "cannot mount on %s: it is not a directory", directory);
	return 0;
}

int node_bind(const char *source, const char *directory, bool noexec, Error *error)
{
	struct mount_attr attributes = {
		.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | (noexec ? MOUNT_ATTR_NOEXEC : 0),
	};
	_cleanup_close_ int fd = open_tree(AT_FDCWD, source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (fd < 0 || mount_setattr(fd, "", AT_EMPTY_PATH, &attributes, sizeof(attributes)) < 0)
		return error_set(error, -errno, "cannot take %s for a mount: %s", source, strerror(errno));
	if (move_mount(fd, "", AT_FDCWD, directory, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return error_set(error, -errno, "cannot mount on %s: %s", directory, strerror(errno));
	return 0;
}

bool node_bound(const char *directory, const Digest *chain_id)
{
	MountEntry entry;
	char hex[DIGEST_HEX_SIZE];
	return mount_table_find(directory, &entry) == 0 && entry.root[0] == '/' &&
	       strcmp(entry.root + 1, digest_hex(chain_id, hex)) == 0;
}

bool node_bound_in(const char *table, const char *directory, const char *whole)
{
	MountEntry bind, mount;
	_cleanup_free_ char *first = strdup(table), *second = strdup(table);
	return first && second && mount_table_search(first, directory, &bind) == 0 &&
	       mount_table_search(second, whole, &mount) == 0 && bind.major == mount.major && bind.minor == mount.minor;
}

/* Is `path`, of `length` bytes, the directory or something below it? */
static bool is_below(const char *path, size_t length, const char *directory)
{
	size_t above = strlen(directory);
	return length >= above && memcmp(path, directory, above) == 0 && (length == above || path[above] == '/');
}

/* Calls each() for every line until it says yes. */
static bool search_lines(const char *table, bool (*each)(const char *line, size_t length, const void *arg),
			 const void *arg)
{
	for (const char *line = table, *end; *line; line = end + (*end == '\n')) {
		end = strchrnul(line, '\n');
		if (each(line, (size_t)(end - line), arg))
			return true;
	}
	return false;
}

static bool is_overlay_on(const char *line, size_t length, const void *arg)
{
	static const char type[] = " - overlay ", option[] = "lowerdir=";
	const char *directory = arg, *end = line + length;
	const char *at = memmem(line, length, type, strlen(type));
	at = at ? memmem(at, (size_t)(end - at), option, strlen(option)) : NULL;
	if (!at)
		return false;
	for (at += strlen(option); at < end && *at != ','; at += at < end && *at == ':') {
		size_t path = strcspn(at, ":,\n");
		if (is_below(at, path, directory))
			return true;
		at += path;
	}
	return false;
}

/* As mountinfo has a path: blank, tab, newline and backslash in octal. */
static char *escape(const char *path)
{
	char *text = malloc(4 * strlen(path) + 1), *to = text;
	for (; text && *path; path++) {
		if (strchr(" \t\n\\", *path))
			to += sprintf(to, "\\%03o", (unsigned char)*path);
		else
			*to++ = *path;
	}
	if (text)
		*to = '\0';
	return text;
}

bool node_overlay_search(const char *table, const char *directory)
{
	_cleanup_free_ char *escaped = escape(directory);
	return escaped && search_lines(table, is_overlay_on, escaped);
}

char *node_mount_table(void)
{
	char *table = NULL;
	size_t size;
	return proc_file_read("/proc/self/mountinfo", TABLE_MAX, &table, &size) == 0 ? table : NULL;
}

bool node_overlay_on(const char *directory)
{
	_cleanup_free_ char *table = node_mount_table();
	return table && node_overlay_search(table, directory);
}

/* "... /CHAINID DIRECTORY ... - fuse.imgfs ...": the fields are set off by blanks, which paths have not. */
static bool has_fields(const char *line, size_t length, const void *arg)
{
	const char *fields = arg;
	return memmem(line, length, fields, strlen(fields)) && memmem(line, length, IMGFS_TYPE, strlen(IMGFS_TYPE));
}

bool node_bound_search(const char *table, const char *directory, const Digest *chain_id)
{
	_cleanup_free_ char *escaped = escape(directory), *fields = NULL;
	char hex[DIGEST_HEX_SIZE];
	if (!escaped || asprintf(&fields, " /%s %s ", digest_hex(chain_id, hex), escaped) < 0)
		return true; /* nobody is to be taken for unmounted for want of memory */
	return search_lines(table, has_fields, fields);
}

bool node_bound_of(const char *table, const char *directory, const Digest *chain_id, const char *whole)
{
	_cleanup_free_ char *escaped = escape(directory), *copy = strdup(table), *fields = NULL;
	char hex[DIGEST_HEX_SIZE];
	MountEntry mount;
	if (!escaped || !copy || mount_table_search(copy, whole, &mount) < 0 ||
	    asprintf(&fields, " %u:%u /%s %s ", mount.major, mount.minor, digest_hex(chain_id, hex), escaped) < 0)
		return false;
	return search_lines(table, has_fields, fields);
}

int node_unbind(const char *directory, const Digest *chain_id, bool lazy, Error *error)
{
	if (!node_bound(directory, chain_id))
		return 0;
	if (!lazy && node_overlay_on(directory))
		return error_set(
			error, -EBUSY,
			"an overlay uses %s (findmnt -t overlay lists them); end its containers, or unmount with "
			"--lazy",
			directory);
	if (umount2(directory, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0)
		return 0;
	int r = -errno;
	return r == -EBUSY ? error_set(error, r,
				       "%s is in use (fuser -vm %s shows by whom); end those processes, or unmount "
				       "with --lazy",
				       directory, directory)
			   : error_set(error, r, "cannot unmount %s: %s", directory, strerror(-r));
}
