/* Names, attributes, link targets, the file system as a whole. */
#include <limits.h>
#include <string.h>
#include <sys/statvfs.h>

#include "fs/mount/inode-stat.h"
#include "fs/mount/ops.h"
#include "fs/mount/reply-errno.h"

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

const Ops *ops_of(fuse_req_t request)
{
	return fuse_req_userdata(request);
}

void ops_reply_error(fuse_req_t request, int error)
{
	(void)fuse_reply_err(request, reply_errno_tree(error));
}

int ops_inode(const Tree *tree, fuse_ino_t node, uint32_t *ret_number, TreeInode *ret_inode)
{
	uint32_t number;
	int r = inode_from_node(tree, node, &number);
	if (r < 0)
		return r;
	tree_inode(tree, number, ret_inode);
	*ret_number = number;
	return 0;
}

void ops_entry(const Tree *tree, uint32_t number, struct fuse_entry_param *ret_entry)
{
	TreeInode inode;
	tree_inode(tree, number, &inode);
	*ret_entry = (struct fuse_entry_param){
		.ino = inode_to_node(number),
		.attr_timeout = OPS_FOREVER,
		.entry_timeout = OPS_FOREVER,
	};
	inode_stat(tree, number, &inode, &ret_entry->attr);
}

/* "." and ".." come only from file handles (FUSE_EXPORT_SUPPORT). */
static int lookup(const Tree *tree, fuse_ino_t parent, const char *name, uint32_t *ret_number)
{
	uint32_t number;
	TreeInode directory;
	int r = ops_inode(tree, parent, &number, &directory);
	if (r < 0)
		return r;
	if (strcmp(name, ".") == 0) {
		*ret_number = number;
		return 0;
	}
	if (!S_ISDIR(directory.mode))
		return -ENOTDIR;
	if (strcmp(name, "..") == 0) {
		*ret_number = directory.parent;
		return 0;
	}
	size_t length = strlen(name);
	if (length > FORMAT_NAME_MAX)
		return -ENAMETOOLONG; /* the kernel's own limit is 1,024 bytes */
	TreeDirent entry;
	r = tree_lookup(tree, &directory, name, length, &entry);
	if (r < 0)
		return r;
	*ret_number = entry.inode;
	return 0;
}

void ops_lookup(fuse_req_t request, fuse_ino_t parent, const char *name)
{
	const Tree *tree = &ops_of(request)->server->tree;
	struct fuse_entry_param entry;
	uint32_t number;
	int r = lookup(tree, parent, name, &number);
	if (r == -ENOENT) {
		/* Node 0 lets the kernel remember that there is no such name. */
		entry = (struct fuse_entry_param){ .entry_timeout = OPS_FOREVER };
	} else if (r < 0) {
		ops_reply_error(request, r);
		return;
	} else {
		ops_entry(tree, number, &entry);
	}
	(void)fuse_reply_entry(request, &entry);
}

void ops_getattr(fuse_req_t request, fuse_ino_t node, _unused_ struct fuse_file_info *file)
{
	const Tree *tree = &ops_of(request)->server->tree;
	uint32_t number;
	TreeInode inode;
	int r = ops_inode(tree, node, &number, &inode);
	if (r < 0) {
		ops_reply_error(request, r);
		return;
	}
	struct stat st;
	inode_stat(tree, number, &inode, &st);
	(void)fuse_reply_attr(request, &st, OPS_FOREVER);
}

void ops_readlink(fuse_req_t request, fuse_ino_t node)
{
	const Tree *tree = &ops_of(request)->server->tree;
	uint32_t number;
	TreeInode inode;
	int r = ops_inode(tree, node, &number, &inode);
	if (r == 0 && !S_ISLNK(inode.mode))
		r = -EINVAL;
	if (r < 0) {
		ops_reply_error(request, r);
		return;
	}
	TreeString target = tree_target(tree, &inode);
	char text[PATH_MAX + 1];
	size_t size = target.size < PATH_MAX ? target.size : PATH_MAX;
	memcpy(text, target.data, size);
	text[size] = '\0';
	(void)fuse_reply_readlink(request, text);
}

void ops_statfs(fuse_req_t request, _unused_ fuse_ino_t node)
{
	const MountServer *server = ops_of(request)->server;
	struct statvfs st = {
		.f_bsize = STATFS_BLOCK,
		.f_frsize = STATFS_BLOCK,
		.f_blocks = (server->image_size + STATFS_BLOCK - 1) / STATFS_BLOCK,
		.f_files = server->tree.inode_count,
		.f_namemax = NAME_MAX,
	};
	(void)fuse_reply_statfs(request, &st);
}
