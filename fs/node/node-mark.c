/*
 * What was mounted where since the machine started: <runtime>/bound/<SHA-256 of the owner>. A record whose mark is there while its mount is
 * not was unmounted by somebody; one without a mark is still to be mounted.
 */
#include <fcntl.h>
#include <string.h>

#include "fs/node/node-private.h"

static bool name_of(const char *owner, char ret_name[static DIGEST_HEX_SIZE])
{
	Digest digest;
	if (digest_of(owner, strlen(owner), &digest) < 0)
		return false;
	(void)digest_hex(&digest, ret_name);
	return true;
}

void node_mark_set(Node *node, const char *owner, bool bound)
{
	char name[DIGEST_HEX_SIZE];
	if (!name_of(owner, name))
		return;
	if (!bound) {
		(void)unlinkat(node->bound_fd, name, 0);
		return;
	}
	/* Without a mark, what is unmounted while no manager runs is mounted again. */
	_cleanup_close_ _unused_ int fd = openat(node->bound_fd, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
}

bool node_mark_has(Node *node, const char *owner)
{
	char name[DIGEST_HEX_SIZE];
	return name_of(owner, name) && faccessat(node->bound_fd, name, F_OK, 0) == 0;
}
