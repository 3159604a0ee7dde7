#include "fs/mount/inode-stat.h"

#include <sys/sysmacros.h>

#define BLOCK 512u

static uint64_t data_size(const Tree *tree, const TreeInode *inode)
{
	if (!S_ISREG(inode->mode))
		return 0;
	if (!(inode->flags & TREE_SPARSE))
		return inode->size;
	uint64_t total = 0;
	for (uint32_t i = 0; i < inode->count; i++) {
		TreeExtent extent;
		tree_extent(tree, inode, i, &extent);
		total += extent.length;
	}
	return total;
}

void inode_stat(const Tree *tree, uint64_t node, const TreeInode *inode, struct stat *ret_stat)
{
	struct timespec mtime = { .tv_sec = inode->mtime_sec, .tv_nsec = inode->mtime_nsec };
	bool device = S_ISCHR(inode->mode) || S_ISBLK(inode->mode);
	*ret_stat = (struct stat){
		.st_ino = node,
		/* Linux keeps no mode of symbolic links, whatever a tar says of them (symlink(7)). */
		.st_mode = S_ISLNK(inode->mode) ? S_IFLNK | ACCESSPERMS : inode->mode,
		.st_nlink = inode->nlink,
		.st_uid = inode->uid,
		.st_gid = inode->gid,
		.st_rdev = device ? makedev((unsigned)(inode->data >> 32), (unsigned)inode->data) : 0,
		.st_size = (off_t)inode->size,
		.st_blksize = 4096,
		.st_blocks = (blkcnt_t)((data_size(tree, inode) + BLOCK - 1) / BLOCK),
		.st_atim = mtime,
		.st_mtim = mtime,
		.st_ctim = mtime,
	};
}
