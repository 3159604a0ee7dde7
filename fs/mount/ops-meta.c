/* Names, attributes, link targets, the file system as a whole. */
#include <limits.h>
#include <string.h>
#include <sys/statvfs.h>

#include "fs/mount/inode-stat.h"
#include "fs/mount/ops.h"

#define STATFS_BLOCK 4096u

const struct fuse_lowlevel_ops ops_table = {
	.lookup = ops_lookup,
	.getattr = ops_getattr,
	.readlink = ops_readlink,
	.statfs = ops_statfs,
	.open = ops_open,
	.opendir = ops_open,
	.read = ops_read,
	.lseek = ops_lseek,
	.readdir = ops_readdir,
	.readdirplus = ops_readdirplus,
	.getxattr = ops_getxattr,
	.listxattr = ops_listxattr,
};

/* "." and ".." come only from file handles (FUSE_EXPORT_SUPPORT). */
static int lookup(const OpsTarget *parent, const char *name, uint32_t *ret_number)
{
	if (strcmp(name, ".") == 0) {
		*ret_number = parent->number;
		return 0;
	}
	if (!S_ISDIR(parent->inode.mode))
		return -ENOTDIR;
	if (strcmp(name, "..") == 0) {
		*ret_number = parent->inode.parent;
		return 0;
	}
	size_t length = strlen(name);
	if (length > FORMAT_NAME_MAX)
		return -ENAMETOOLONG; /* the kernel's own limit is 1,024 bytes */
	TreeDirent entry;
	int r = tree_lookup(&parent->image->tree, &parent->inode, name, length, &entry);
	if (r < 0)
		return r;
	*ret_number = entry.inode;
	return 0;
}

/* Is it the way from an image up to the root of one of the daemon's mounts? */
static bool leads_out(const OpsTarget *parent, const char *name)
{
	return parent->image->slot != 0 && parent->number == 0 && strcmp(name, "..") == 0;
}

void ops_lookup(fuse_req_t request, fuse_ino_t node, const char *name)
{
	_cleanup_(ops_target_done) OpsTarget parent = { 0 };
	struct fuse_entry_param entry;
	uint32_t number = 0;
	int r = ops_target(request, node, &parent);
	if (r == 0 && !parent.image) {
		ops_root_lookup(request, name);
		return;
	}
	if (r == 0 && !leads_out(&parent, name))
		r = lookup(&parent, name, &number);
	if (r < 0 && r != -ENOENT) {
		ops_reply_error(request, r);
		return;
	}
	if (r == -ENOENT)
		/* Node 0 lets the kernel remember that there is no such name. */
		entry = (struct fuse_entry_param){ .entry_timeout = OPS_FOREVER };
	else if (leads_out(&parent, name))
		ops_root_entry(ops_of(request), &entry);
	else
		ops_entry(parent.image, number, &entry);
	if (entry.ino != 0 && !S_ISDIR(entry.attr.st_mode))
		listing_hints_looked_up(ops_of(request)->hints, node);
	(void)fuse_reply_entry(request, &entry);
}

void ops_getattr(fuse_req_t request, fuse_ino_t node, _unused_ struct fuse_file_info *file)
{
	_cleanup_(ops_target_done) OpsTarget target = { 0 };
	int r = ops_target(request, node, &target);
	if (r < 0) {
		ops_reply_error(request, r);
		return;
	}
	struct stat st;
	inode_stat(target.image ? &target.image->tree : NULL, target.node, &target.inode, &st);
	(void)fuse_reply_attr(request, &st, target.image ? OPS_FOREVER : 0);
}

void ops_readlink(fuse_req_t request, fuse_ino_t node)
{
	_cleanup_(ops_target_done) OpsTarget target = { 0 };
	int r = ops_target(request, node, &target);
	if (r == 0 && !S_ISLNK(target.inode.mode))
		r = -EINVAL;
	if (r < 0) {
		ops_reply_error(request, r);
		return;
	}
	TreeString path = tree_target(&target.image->tree, &target.inode);
	char text[PATH_MAX + 1];
	size_t size = path.size < PATH_MAX ? path.size : PATH_MAX;
	memcpy(text, path.data, size);
	text[size] = '\0';
	(void)fuse_reply_readlink(request, text);
}

void ops_statfs(fuse_req_t request, fuse_ino_t node)
{
	_cleanup_(ops_target_done) OpsTarget target = { 0 };
	int r = ops_target(request, node, &target);
	if (r < 0) {
		ops_reply_error(request, r);
		return;
	}
	if (!target.image) {
		ops_root_statfs(request);
		return;
	}
	struct statvfs st = {
		.f_bsize = STATFS_BLOCK,
		.f_frsize = STATFS_BLOCK,
		.f_blocks = (target.image->image_size + STATFS_BLOCK - 1) / STATFS_BLOCK,
		.f_files = target.image->tree.inode_count,
		.f_namemax = NAME_MAX,
	};
	(void)fuse_reply_statfs(request, &st);
}
