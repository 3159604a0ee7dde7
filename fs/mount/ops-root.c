/*
 * The root of one of the daemon's mounts: a directory of images by their chain IDs. They come and go, so the kernel must keep neither
 * names nor attributes of it, and looks at its time before it trusts what it has listed (FUSE_AUTO_INVAL_DATA). Offset 1 of the
 * listing comes after ".", 2 after "..", slot + 2 after an image: they never change, and a slot is never used again.
 */
#include <limits.h>
#include <string.h>
#include <sys/statvfs.h>

#include "fs/mount/inode-stat.h"
#include "fs/mount/ops.h"
#include "fs/mount/worker.h"

#define ROOT_NODE 1u

void ops_root_inode(const Ops *ops, TreeInode *ret_inode)
{
	MountRoot root;
	mount_server_root(ops->server, ops->kind == OPS_XATTR, &root);
	*ret_inode = (TreeInode){
		.mode = S_IFDIR | 0755,
		.nlink = root.count + 2,
		.mtime_sec = root.changed.tv_sec,
		.mtime_nsec = (uint32_t)root.changed.tv_nsec,
	};
}

void ops_root_entry(const Ops *ops, struct fuse_entry_param *ret_entry)
{
	TreeInode inode;
	ops_root_inode(ops, &inode);
	*ret_entry = (struct fuse_entry_param){ .ino = ROOT_NODE };
	inode_stat(NULL, ROOT_NODE, &inode, &ret_entry->attr);
}

static int lookup(fuse_req_t request, const char *name, struct fuse_entry_param *ret_entry)
{
	const Ops *ops = ops_of(request);
	_cleanup_(mount_image_unref_p) MountImage *image = NULL;
	int r = mount_server_find(ops->server, ops->kind == OPS_XATTR, name, &image);
	if (r < 0)
		return r;
	r = ops_open_image(image);
	if (r < 0)
		return r;
	ops_entry(image, 0, ret_entry);
	ret_entry->entry_timeout = 0; /* the name may be another image's slot next time */
	return 0;
}

void ops_root_lookup(fuse_req_t request, const char *name)
{
	struct fuse_entry_param entry;
	int r = 0;
	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		ops_root_entry(ops_of(request), &entry);
	else
		r = lookup(request, name, &entry);
	if (r < 0)
		ops_reply_error(request, r); /* an ENOENT of this kind is not remembered */
	else
		(void)fuse_reply_entry(request, &entry);
}

/* Names alone: what an image's root is like, only a lookup says, since it may not be open yet. */
static size_t add(fuse_req_t request, char *at, size_t left, const char *name, uint64_t node, off_t next, bool plus)
{
	struct fuse_entry_param entry = { .attr = { .st_ino = node, .st_mode = S_IFDIR } };
	return plus ? fuse_add_direntry_plus(request, at, left, name, &entry, next)
		    : fuse_add_direntry(request, at, left, name, &entry.attr, next);
}

void ops_root_list(fuse_req_t request, size_t size, off_t offset, bool plus)
{
	const Ops *ops = ops_of(request);
	size_t room = size < WORKER_BUFFER_SIZE ? size : WORKER_BUFFER_SIZE, used = 0;
	char *buffer = (char *)worker_buffer(worker_current(), room);
	while (offset < 2) {
		size_t needed =
			add(request, buffer + used, room - used, offset == 0 ? "." : "..", ROOT_NODE, offset + 1, plus);
		if (needed > room - used)
			break;
		used += needed;
		offset++;
	}
	while (offset >= 2 && offset - 2 < INT32_MAX) {
		_cleanup_(mount_image_unref_p) MountImage *image = NULL;
		if (mount_server_next(ops->server, ops->kind == OPS_XATTR, (uint32_t)(offset - 2), &image) < 0)
			break;
		size_t needed = add(request, buffer + used, room - used, image->name, mount_image_node(image, 0),
				    (off_t)image->slot + 2, plus);
		if (needed > room - used)
			break;
		used += needed;
		offset = (off_t)image->slot + 2;
	}
	(void)fuse_reply_buf(request, buffer, used);
}

void ops_root_statfs(fuse_req_t request)
{
	MountRoot root;
	const Ops *ops = ops_of(request);
	mount_server_root(ops->server, ops->kind == OPS_XATTR, &root);
	struct statvfs st = { .f_bsize = 4096, .f_frsize = 4096, .f_files = root.count + 1, .f_namemax = NAME_MAX };
	(void)fuse_reply_statfs(request, &st);
}
