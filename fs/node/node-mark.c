/*
 * What was mounted where since the machine started: <runtime>/bound/<SHA-256 of the owner>, with the directory in it. A record whose mark is there while its
 * mount is not was unmounted by somebody; one without a mark is still to be mounted. A mark without a record, while its mount is there, tells of a record
 * that was lost.
 */
#include <fcntl.h>
#include <string.h>

#include "fs/base/fd.h"
#include "fs/base/log.h"
#include "fs/mount/mount-table.h"
#include "fs/node/node-private.h"

static bool name_of(const char *owner, char ret_name[static DIGEST_HEX_SIZE])
{
	Digest digest;
	if (digest_of(owner, strlen(owner), &digest) < 0)
		return false;
	(void)digest_hex(&digest, ret_name);
	return true;
}

void node_mark_set(Node *node, const char *owner, const char *directory)
{
	char name[DIGEST_HEX_SIZE];
	if (!name_of(owner, name))
		return;
	if (!directory) {
		(void)unlinkat(node->bound_fd, name, 0);
		return;
	}
	/* Without a mark, what is unmounted while no manager runs is mounted again. */
	_cleanup_close_ int fd = openat(node->bound_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	int r = fd < 0 ? -errno : fd_write_all(fd, directory, strlen(directory));
	(void)r;
}

bool node_mark_has(Node *node, const char *owner)
{
	char name[DIGEST_HEX_SIZE];
	return name_of(owner, name) && faccessat(node->bound_fd, name, F_OK, 0) == 0;
}

static bool is_held(const Node *node, const char *mark)
{
	char name[DIGEST_HEX_SIZE];
	for (const NodeHolder *holder = node->holders; holder; holder = holder->next)
		if (name_of(holder->owner, name) && strcmp(name, mark) == 0)
			return true;
	return false;
}

/* Of a mark that nobody holds anything for. Returns whether an image is mounted there. */
static bool is_mounted(Node *node, const char *mark)
{
	_cleanup_free_ char *directory = NULL;
	size_t size;
	MountEntry entry;
	if (fd_read_file(node->bound_fd, mark, PATH_MAX, &directory, &size) < 0 || directory[0] != '/' ||
	    mount_table_find(directory, &entry) < 0 || strlen(entry.root) != DIGEST_HEX_SIZE)
		return false;
	log_error("the record of what is mounted on %s is lost; it stays until it is unmounted: imgfs umount %s "
		  "file=%s/attached/%s.json",
		  directory, directory, node->options.state, mark);
	return true;
}

unsigned node_marks_lost(Node *node)
{
	int fd = openat(node->bound_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_closedir_ DIR *marks = fd < 0 ? NULL : fdopendir(fd);
	unsigned lost = 0;
	if (!marks) {
		close_p(&fd);
		return 0;
	}
	for (struct dirent *entry; (entry = readdir(marks));) {
		if (entry->d_name[0] == '.' || is_held(node, entry->d_name))
			continue;
		if (is_mounted(node, entry->d_name))
			lost++;
		else
			(void)unlinkat(node->bound_fd, entry->d_name, 0);
	}
	return lost;
}
