/*
 * Extended attributes. A view without any answers ENOSYS, which the kernel remembers: overlayfs asks at every cold entry, and the
 * kernel caches no other answer.
 */
#include <string.h>

#include "fs/mount/ops.h"
#include "fs/mount/worker.h"

/* Replies with a value, or with its size alone when the caller has no room for anything yet. */
static void reply_value(fuse_req_t request, const char *data, size_t value_size, size_t room)
{
	if (room == 0)
		(void)fuse_reply_xattr(request, value_size);
	else if (value_size > room)
		ops_reply_error(request, -ERANGE);
	else
		(void)fuse_reply_buf(request, data, value_size);
}

static int inode_with_xattrs(fuse_req_t request, fuse_ino_t node, TreeInode *ret_inode)
{
	const MountServer *server = ops_of(request)->server;
	uint32_t number;
	if (!server->has_xattrs)
		return -ENOSYS;
	return ops_inode(&server->tree, node, &number, ret_inode);
}

static int find(const Tree *tree, const TreeInode *inode, const char *name, TreeXattr *ret_xattr)
{
	size_t size = strlen(name);
	uint32_t count = tree_xattr_count(tree, inode);
	for (uint32_t i = 0; i < count; i++) {
		tree_xattr(tree, inode, i, ret_xattr);
		if (ret_xattr->name.size == size && memcmp(ret_xattr->name.data, name, size) == 0)
			return 0;
	}
	return -ENODATA;
}

void ops_getxattr(fuse_req_t request, fuse_ino_t node, const char *name, size_t size)
{
	TreeInode inode;
	TreeXattr xattr;
	int r = inode_with_xattrs(request, node, &inode);
	if (r == 0)
		r = find(&ops_of(request)->server->tree, &inode, name, &xattr);
	if (r < 0) {
		ops_reply_error(request, r);
		return;
	}
	uint8_t *buffer = worker_current()->buffer;
	size_t value_size = xattr.value.size;
	if (value_size > WORKER_BUFFER_SIZE) {
		ops_reply_error(request, -ERANGE);
		return;
	}
	memcpy(buffer, xattr.value.data, value_size);
	reply_value(request, (const char *)buffer, value_size, size);
}

void ops_listxattr(fuse_req_t request, fuse_ino_t node, size_t size)
{
	TreeInode inode;
	int r = inode_with_xattrs(request, node, &inode);
	if (r < 0) {
		ops_reply_error(request, r);
		return;
	}
	const Tree *tree = &ops_of(request)->server->tree;
	char *buffer = (char *)worker_current()->buffer;
	size_t used = 0;
	uint32_t count = tree_xattr_count(tree, &inode);
	for (uint32_t i = 0; i < count; i++) {
		TreeXattr xattr;
		tree_xattr(tree, &inode, i, &xattr);
		if (xattr.name.size >= WORKER_BUFFER_SIZE - used) {
			ops_reply_error(request, -ERANGE);
			return;
		}
		memcpy(buffer + used, xattr.name.data, xattr.name.size);
		used += xattr.name.size;
		buffer[used++] = '\0';
	}
	reply_value(request, buffer, used, size);
}
