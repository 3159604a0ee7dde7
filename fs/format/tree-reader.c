#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/base/bytes.h"
#include "fs/format/tree-layout.h"
#include "fs/format/tree.h"

static const uint8_t *record(const Tree *tree, FormatSection section, uint64_t number, size_t size)
{
	return tree->image->sections[section].data + number * size;
}

static TreeString string_at(const Tree *tree, uint64_t offset, size_t size)
{
	const uint8_t *strings = tree->image->sections[FORMAT_SECTION_STRINGS].data;
	return (TreeString){ .data = (const char *)strings + offset, .size = size };
}

bool tree_is_packed(const TreeInode *inode)
{
	return S_ISREG(inode->mode) && !(inode->flags & TREE_SPARSE) && inode->size > 0 &&
	       inode->size < FORMAT_LARGE_FILE;
}

void tree_inode(const Tree *tree, uint32_t number, TreeInode *ret_inode)
{
	const uint8_t *from = record(tree, FORMAT_SECTION_INODES, number, INODE_SIZE);
	*ret_inode = (TreeInode){
		.mode = load_le32(from + INODE_AT_MODE),
		.uid = load_le32(from + INODE_AT_UID),
		.gid = load_le32(from + INODE_AT_GID),
		.nlink = load_le32(from + INODE_AT_NLINK),
		.mtime_sec = (int64_t)load_le64(from + INODE_AT_MTIME_SEC),
		.mtime_nsec = load_le32(from + INODE_AT_MTIME_NSEC),
		.flags = load_le32(from + INODE_AT_FLAGS),
		.size = load_le64(from + INODE_AT_SIZE),
		.data = load_le64(from + INODE_AT_DATA),
		.count = load_le32(from + INODE_AT_COUNT),
		.parent = load_le32(from + INODE_AT_PARENT),
		.xattr = load_le32(from + INODE_AT_XATTR),
		.layer = load_le32(from + INODE_AT_LAYER),
	};
}

void tree_dirent(const Tree *tree, uint64_t number, TreeDirent *ret_dirent)
{
	const uint8_t *from = record(tree, FORMAT_SECTION_DIRENTS, number, DIRENT_SIZE);
	*ret_dirent = (TreeDirent){
		.inode = load_le32(from + DIRENT_AT_INODE),
		.type = from[DIRENT_AT_TYPE],
		.name = string_at(tree, load_le32(from + DIRENT_AT_NAME), load_le16(from + DIRENT_AT_LENGTH)),
	};
}

int tree_compare_names(TreeString left, TreeString right)
{
	int order = memcmp(left.data, right.data, left.size < right.size ? left.size : right.size);
	if (order != 0)
		return order;
	return (left.size > right.size) - (left.size < right.size);
}

int tree_lookup(const Tree *tree, const TreeInode *directory, const char *name, size_t name_size,
		TreeDirent *ret_dirent)
{
	const TreeString wanted = { .data = name, .size = name_size };
	uint64_t low = directory->data, high = low + directory->count;
	while (low < high) {
		uint64_t middle = low + (high - low) / 2;
		TreeDirent entry;
		tree_dirent(tree, middle, &entry);
		int order = tree_compare_names(wanted, entry.name);
		if (order == 0) {
			*ret_dirent = entry;
			return 0;
		}
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return -ENOENT;
}

TreeString tree_target(const Tree *tree, const TreeInode *inode)
{
	return string_at(tree, inode->data, inode->flags & TREE_LOWER_LINK ? inode->count : inode->size);
}

void tree_extent(const Tree *tree, const TreeInode *inode, uint32_t number, TreeExtent *ret_extent)
{
	const uint8_t *from = record(tree, FORMAT_SECTION_EXTENTS, inode->data + number, EXTENT_SIZE);
	*ret_extent = (TreeExtent){
		.file_offset = load_le64(from + EXTENT_AT_FILE),
		.tar_offset = load_le64(from + EXTENT_AT_TAR),
		.length = load_le64(from + EXTENT_AT_LENGTH),
	};
}

uint32_t tree_first_extent(const Tree *tree, const TreeInode *inode, uint64_t offset)
{
	uint32_t low = 0, high = inode->count;
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		TreeExtent extent;
		tree_extent(tree, inode, middle, &extent);
		if (extent.file_offset + extent.length <= offset)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

uint32_t tree_xattr_count(const Tree *tree, const TreeInode *inode)
{
	if (inode->xattr == 0)
		return 0;
	return load_le32(record(tree, FORMAT_SECTION_XATTR_SETS, inode->xattr - 1, XATTR_SET_SIZE) +
			 XATTR_SET_AT_COUNT);
}

void tree_xattr(const Tree *tree, const TreeInode *inode, uint32_t number, TreeXattr *ret_xattr)
{
	const uint8_t *set = record(tree, FORMAT_SECTION_XATTR_SETS, inode->xattr - 1, XATTR_SET_SIZE);
	uint64_t item = (uint64_t)load_le32(set + XATTR_SET_AT_FIRST) + number;
	const uint8_t *from = record(tree, FORMAT_SECTION_XATTR_ITEMS, item, XATTR_ITEM_SIZE);
	ret_xattr->name =
		string_at(tree, load_le32(from + XATTR_ITEM_AT_NAME), load_le16(from + XATTR_ITEM_AT_NAME_LENGTH));
	ret_xattr->value =
		string_at(tree, load_le32(from + XATTR_ITEM_AT_VALUE), load_le32(from + XATTR_ITEM_AT_VALUE_LENGTH));
}

void tree_layer(const Tree *tree, uint32_t number, Digest *ret_diff_id)
{
	memcpy(ret_diff_id->bytes, record(tree, FORMAT_SECTION_LAYERS, number, DIGEST_SIZE), DIGEST_SIZE);
}
