/*
 * The tree of an index or a view: inodes, directory entries, names, xattrs, extents (docs/format.md sections 3.2
 * and 3.3). Used straight from the image's memory; nothing is allocated or parsed for a file.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/format/image.h"

/* Bytes inside the image, not NUL-terminated. */
typedef struct TreeString {
	const char *data;
	size_t size;
} TreeString;

typedef struct TreeInode {
	uint32_t mode;
	uint32_t uid;
	uint32_t gid;
	uint32_t nlink;
	int64_t mtime_sec;
	uint32_t mtime_nsec;
	uint32_t flags; /* TREE_* */
	uint64_t size;
	uint64_t data; /* by type, as docs/format.md section 3.2 */
	uint32_t count;
	uint32_t parent;
	uint32_t xattr; /* xattr set + 1, or 0 */
	uint32_t layer;
} TreeInode;

typedef struct TreeDirent {
	uint32_t inode;
	uint8_t type; /* DT_* */
	TreeString name;
} TreeDirent;

typedef struct TreeExtent {
	uint64_t file_offset;
	uint64_t tar_offset;
	uint64_t length;
} TreeExtent;

typedef struct TreeXattr {
	TreeString name;
	TreeString value;
} TreeXattr;

/* Points into the image it was opened on, which must outlive it. Immutable: any thread may read it. */
typedef struct Tree {
	uint32_t inode_count;
	uint32_t dirent_count;
	uint32_t layer_count; /* of a view; 0 for an index */
	uint32_t xattr_set_count;
	const Image *image;
} Tree;

/*
 * Validates everything the functions below rely on (ranges, order of names, types, one parent a directory and no
 * cycles, link counts, extents ascending and inside the file, data inside the tar for an index), so that they need no
 * checks. Linear in the image's size; allocates, while it runs, 4 bytes an inode and a bit an entry.
 * Errors: -EBADMSG, -ENOMEM.
 */
int tree_open(const Image *image, Tree *ret_tree, Error *error) _must_check_;

/* Inode `number`, which must be below inode_count. */
void tree_inode(const Tree *tree, uint32_t number, TreeInode *ret_inode);

/* Is it one of those that the packed digests are of, in their order (docs/format.md section 3, type 10)? */
bool tree_is_packed(const TreeInode *inode);

/* Directory entry `number` of the whole table, as in [inode.data, inode.data + inode.count) of a directory. */
void tree_dirent(const Tree *tree, uint64_t number, TreeDirent *ret_dirent);

/* The order of a directory's entries: by bytes, a name before those it begins. As memcmp(), below, at or above 0. */
int tree_compare_names(TreeString left, TreeString right);

/* Finds `name` in a directory by binary search. Errors: -ENOENT. */
int tree_lookup(const Tree *tree, const TreeInode *directory, const char *name, size_t name_size,
		TreeDirent *ret_dirent) _must_check_;

/* Target of a symlink or of a lower hard link. */
TreeString tree_target(const Tree *tree, const TreeInode *inode);

/* Extent `number` of a sparse file, below inode->count. */
void tree_extent(const Tree *tree, const TreeInode *inode, uint32_t number, TreeExtent *ret_extent);

/* The first extent of a sparse file that ends after `offset`; inode->count when none does. */
uint32_t tree_first_extent(const Tree *tree, const TreeInode *inode, uint64_t offset);

/* How many xattrs an inode has, and xattr `number` of them, in the order the tar gives. */
uint32_t tree_xattr_count(const Tree *tree, const TreeInode *inode);
void tree_xattr(const Tree *tree, const TreeInode *inode, uint32_t number, TreeXattr *ret_xattr);

/* diffID of layer `number` of a view. */
void tree_layer(const Tree *tree, uint32_t number, Digest *ret_diff_id);

/*
 * Writes a tree. Inodes are added in their final order, inode 0 being the root; directories get their entries
 * afterwards, in any order of directories, each directory once. The writer copies what it is given and keeps no rules
 * of section 3.4 but widths: tree_open() judges the result. One owner, no locking.
 */
typedef struct TreeWriter TreeWriter;

int tree_writer_new(TreeWriter **ret_writer) _must_check_;
TreeWriter *tree_writer_free(TreeWriter *writer);
DEFINE_CLEANUP(TreeWriter, tree_writer_free);

/*
 * Adds an inode; `inode`'s data, count and xattr are ignored where the arguments give them: `target` (symlink, lower
 * hard link), `extents` (sparse), `xattrs`. `extras` may be NULL. Equal xattr lists of consecutive inodes share one
 * set. Errors: -ENOMEM, -EFBIG.
 */
typedef struct TreeExtras {
	TreeString target;
	const TreeExtent *extents;
	size_t extent_count;
	const TreeXattr *xattrs;
	size_t xattr_count;
} TreeExtras;

int tree_writer_add_inode(TreeWriter *writer, const TreeInode *inode, const TreeExtras *extras, uint32_t *ret_number)
	_must_check_;

/*
 * Gives directory `directory` its entries, already in ascending byte order of the names. Errors: -EINVAL, -ENOMEM,
 * -EFBIG.
 */
int tree_writer_add_entries(TreeWriter *writer, uint32_t directory, const TreeDirent *entries, size_t count)
	_must_check_;

/* Gives sections 4 to 9 to the image; the writer is of no further use. */
int tree_writer_finish(TreeWriter *writer, ImageWriter *image) _must_check_;
