/*
 * Extended attributes. A view without any answers ENOSYS, which the kernel remembers for the whole mount: overlayfs asks at every cold
 * entry, and the kernel caches no other answer. So the daemon has a mount for such views alone.
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

static int target_with_xattrs(fuse_req_t request, fuse_ino_t node, OpsTarget *ret_target)
{
	OpsKind kind = ops_of(request)->kind;
	if (kind == OPS_PLAIN)
		return -ENOSYS;
	int r = ops_target(request, node, ret_target);
	return r == 0 && kind == OPS_PRIVATE && !ret_target->image->has_xattrs ? -ENOSYS : r;
}

static uint32_t count_of(const OpsTarget *target)
{
	return target->image ? tree_xattr_count(&target->image->tree, &target->inode) : 0;
}

static int find(const OpsTarget *target, const char *name, TreeXattr *ret_xattr)
{
	size_t size = strlen(name);
	uint32_t count = count_of(target);
	for (uint32_t i = 0; i < count; i++) {
		tree_xattr(&target->image->tree, &target->inode, i, ret_xattr);
		if (ret_xattr->name.size == size && memcmp(ret_xattr->name.data, name, size) == 0)
			return 0;
	}
	return -ENODATA;
}

void ops_getxattr(fuse_req_t request, fuse_ino_t node, const char *name, size_t size)
{
	_cleanup_(ops_target_done) OpsTarget target = { 0 };
	TreeXattr xattr;
	int r = target_with_xattrs(request, node, &target);
	if (r == 0)
		r = find(&target, name, &xattr);
	if (r < 0) {
		ops_reply_error(request, r);
		return;
	}
	size_t value_size = xattr.value.size;
	if (value_size > WORKER_BUFFER_SIZE) {
		ops_reply_error(request, -ERANGE);
		return;
	}
	uint8_t *buffer = worker_buffer(worker_current(), value_size);
	memcpy(buffer, xattr.value.data, value_size);
	reply_value(request, (const char *)buffer, value_size, size);
}

void ops_listxattr(fuse_req_t request, fuse_ino_t node, size_t size)
{
	_cleanup_(ops_target_done) OpsTarget target = { 0 };
	int r = target_with_xattrs(request, node, &target);
	if (r < 0) {
		ops_reply_error(request, r);
		return;
	}
	Worker *worker = worker_current();
	char *buffer = (char *)worker_buffer(worker, 0);
	size_t used = 0;
	uint32_t count = count_of(&target);
	for (uint32_t i = 0; i < count; i++) {
		TreeXattr xattr;
		tree_xattr(&target.image->tree, &target.inode, i, &xattr);
		if (xattr.name.size >= WORKER_BUFFER_SIZE - used) {
			ops_reply_error(request, -ERANGE);
			return;
		}
		(void)worker_buffer(worker, used + xattr.name.size + 1);
		memcpy(buffer + used, xattr.name.data, xattr.name.size);
		used += xattr.name.size;
		buffer[used++] = '\0';
	}
	reply_value(request, buffer, used, size);
}
