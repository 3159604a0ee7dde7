#include "tools/export/file-compare.h"

#include <string.h>
#include <sys/stat.h>

#define STEP FORMAT_CHUNK_MAX /* bytes compared at once */

static const LayerReader *reader_of(const ImageView *view, const TreeInode *inode)
{
	return view->layers[inode->layer].reader;
}

/* The same bytes of the same tar? */
static bool same_place(const FilePair *pair)
{
	const LayerReader *left = reader_of(pair->left, &pair->left_inode);
	const LayerReader *right = reader_of(pair->right, &pair->right_inode);
	bool sparse = (pair->left_inode.flags | pair->right_inode.flags) & TREE_SPARSE;
	return !sparse && pair->left_inode.data == pair->right_inode.data &&
	       digest_equal(&left->layer.diff_id, &right->layer.diff_id);
}

/* Do both consist of the same frames? A chunk starts and ends with the data of a file that is large. */
static bool same_frames(const FilePair *pair)
{
	const ChunkTable *left = &reader_of(pair->left, &pair->left_inode)->chunks;
	const ChunkTable *right = &reader_of(pair->right, &pair->right_inode)->chunks;
	uint64_t size = pair->left_inode.size, done = 0;
	if (size < FORMAT_LARGE_FILE || (pair->left_inode.flags | pair->right_inode.flags) & TREE_SPARSE)
		return false;
	uint32_t first = chunk_table_find(left, pair->left_inode.data);
	uint32_t second = chunk_table_find(right, pair->right_inode.data);
	while (done < size) {
		Chunk one, other;
		chunk_table_get(left, first++, &one);
		chunk_table_get(right, second++, &other);
		if (one.tar_offset != pair->left_inode.data + done ||
		    other.tar_offset != pair->right_inode.data + done || one.tar_size != other.tar_size ||
		    !digest_equal(&one.digest, &other.digest))
			return false;
		done += one.tar_size;
	}
	return done == size;
}

/* Behind what is a hole in both: one may be as long as any file, and takes no byte of a tar. */
static uint64_t skip_holes(const FilePair *pair, uint64_t offset)
{
	uint64_t left = image_view_next_data(pair->left, &pair->left_inode, offset);
	uint64_t right = image_view_next_data(pair->right, &pair->right_inode, offset);
	return left < right ? left : right;
}

static int compare_bytes(const FilePair *pair, Error *error)
{
	_cleanup_free_ uint8_t *left = malloc(STEP);
	_cleanup_free_ uint8_t *right = malloc(STEP);
	if (!left || !right)
		return error_set(error, -ENOMEM, "out of memory to compare files");
	for (uint64_t done = skip_holes(pair, 0); done < pair->left_inode.size; done = skip_holes(pair, done)) {
		uint64_t rest = pair->left_inode.size - done;
		size_t size = rest < STEP ? (size_t)rest : STEP;
		int r = image_view_read(pair->left, &pair->left_inode, done, left, size, error);
		if (r == 0)
			r = image_view_read(pair->right, &pair->right_inode, done, right, size, error);
		if (r < 0)
			return r;
		if (memcmp(left, right, size) != 0)
			return 0;
		done += size;
	}
	return 1;
}

int file_compare_content(const FilePair *pair, Error *error)
{
	Digest left, right;
	if (pair->left_inode.size != pair->right_inode.size)
		return 0;
	if (pair->left_inode.size == 0 || same_place(pair) || same_frames(pair))
		return 1;
	if (image_view_packed(pair->left, &pair->left_inode, &left) == 0 &&
	    image_view_packed(pair->right, &pair->right_inode, &right) == 0)
		return digest_equal(&left, &right);
	return compare_bytes(pair, error);
}

static bool same_string(TreeString left, TreeString right)
{
	return left.size == right.size && memcmp(left.data, right.data, left.size) == 0;
}

static bool same_xattrs(const FilePair *pair)
{
	uint32_t count = tree_xattr_count(&pair->left->tree, &pair->left_inode);
	if (count != tree_xattr_count(&pair->right->tree, &pair->right_inode))
		return false;
	for (uint32_t i = 0; i < count; i++) {
		TreeXattr left, right;
		tree_xattr(&pair->left->tree, &pair->left_inode, i, &left);
		tree_xattr(&pair->right->tree, &pair->right_inode, i, &right);
		if (!same_string(left.name, right.name) || !same_string(left.value, right.value))
			return false;
	}
	return true;
}

unsigned file_compare_metadata(const FilePair *pair)
{
	const TreeInode *left = &pair->left_inode, *right = &pair->right_inode;
	unsigned fields = 0;
	if (left->mode != right->mode)
		fields |= FILE_MODE;
	if (left->uid != right->uid || left->gid != right->gid)
		fields |= FILE_OWNER;
	if (left->mtime_sec != right->mtime_sec || left->mtime_nsec != right->mtime_nsec)
		fields |= FILE_TIME;
	if (!same_xattrs(pair))
		fields |= FILE_XATTRS;
	return fields;
}
