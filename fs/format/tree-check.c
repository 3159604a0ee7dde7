/*
 * The validation of a tree (docs/format.md sections 3.2 to 3.4). Its time is linear in the image whatever the image
 * says: every record is visited a bounded number of times, and records that several inodes could share (extents,
 * entries) must not be shared.
 */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/base/bytes.h"
#include "fs/format/tree-layout.h"
#include "fs/format/tree.h"

#define WAY_OUT "fetch or export it again"

typedef struct Check {
	Tree tree;
	uint64_t strings_size;
	uint64_t extent_count;
	uint64_t item_count;
	uint64_t data_limit;   /* end of the tar; unknown, so INT64_MAX, in a view */
	uint64_t extents_used; /* sparse inodes take the extents in order, without gaps */
	uint64_t entries_used;
	uint64_t packed; /* inodes that section 10 has a digest of */
	uint32_t *names; /* per inode: how many entries name it; later the state of check_reachable() */
	uint8_t *taken;  /* a bit an entry: is it some directory's? */
	Error *error;
} Check;

static int bad(const Check *check, const char *what)
{
	return error_set(check->error, -EBADMSG, "the tree of the index is damaged: %s; " WAY_OUT, what);
}

static int bad_inode(const Check *check, uint32_t number, const char *what)
{
	return error_set(check->error, -EBADMSG, "inode %u of the index is damaged: %s; " WAY_OUT, number, what);
}

static const uint8_t *section(const Check *check, FormatSection type)
{
	return check->tree.image->sections[type].data;
}

static uint32_t inode_field(const Check *check, uint32_t number, size_t at)
{
	return load_le32(section(check, FORMAT_SECTION_INODES) + (size_t)number * INODE_SIZE + at);
}

/* A section's number of records; the records' numbers must fit 32 bits. */
static int count_records(const Check *check, FormatSection type, size_t record_size, uint64_t *ret_count)
{
	const ImageSection *found = &check->tree.image->sections[type];
	if (!found->present)
		return error_set(check->error, -EBADMSG, "the index lacks section %u; " WAY_OUT, type);
	uint64_t count = found->size / record_size;
	if (count * record_size != found->size || count > UINT32_MAX)
		return error_set(check->error, -EBADMSG, "section %u of the index has a wrong length; " WAY_OUT, type);
	*ret_count = count;
	return 0;
}

/* Sections that only the other kind of image may have. */
static int check_kind(const Check *check)
{
	static const FormatSection of_index[] = {
		FORMAT_SECTION_CHUNK_LENGTHS,
		FORMAT_SECTION_CHUNK_MARKS,
		FORMAT_SECTION_CHUNK_DIGESTS,
		FORMAT_SECTION_PACKED_DIGESTS,
	};
	const Image *image = check->tree.image;
	if (image->header.kind == FORMAT_KIND_INDEX)
		return image->sections[FORMAT_SECTION_LAYERS].present ? bad(check, "it names layers as a view does")
								      : 0;
	for (size_t i = 0; i < ELEMENTS(of_index); i++)
		if (image->sections[of_index[i]].present)
			return bad(check, "a view has chunks or digests of its own");
	return 0;
}

static int measure(Check *check)
{
	uint64_t inodes, entries, sets, layers = 0;
	int r = count_records(check, FORMAT_SECTION_INODES, INODE_SIZE, &inodes);
	if (r == 0)
		r = count_records(check, FORMAT_SECTION_DIRENTS, DIRENT_SIZE, &entries);
	if (r == 0)
		r = count_records(check, FORMAT_SECTION_STRINGS, 1, &check->strings_size);
	if (r == 0)
		r = count_records(check, FORMAT_SECTION_EXTENTS, EXTENT_SIZE, &check->extent_count);
	if (r == 0)
		r = count_records(check, FORMAT_SECTION_XATTR_SETS, XATTR_SET_SIZE, &sets);
	if (r == 0)
		r = count_records(check, FORMAT_SECTION_XATTR_ITEMS, XATTR_ITEM_SIZE, &check->item_count);
	if (r == 0 && check->tree.image->header.kind == FORMAT_KIND_VIEW)
		r = count_records(check, FORMAT_SECTION_LAYERS, DIGEST_SIZE, &layers);
	if (r == 0)
		r = check_kind(check);
	if (r < 0)
		return r;
	if (inodes == 0)
		return bad(check, "it has no root");
	if (check->tree.image->header.kind == FORMAT_KIND_VIEW && layers == 0)
		return bad(check, "the view has no layers");
	check->tree.inode_count = (uint32_t)inodes;
	check->tree.dirent_count = (uint32_t)entries;
	check->tree.xattr_set_count = (uint32_t)sets;
	check->tree.layer_count = (uint32_t)layers;
	check->data_limit = layers ? INT64_MAX : check->tree.image->header.tar_size;
	return 0;
}

static bool has_nul(const Check *check, uint64_t offset, size_t size)
{
	return memchr(section(check, FORMAT_SECTION_STRINGS) + offset, '\0', size) != NULL;
}

/* Sets take the items in order, without gaps, so each item is checked once. */
static int check_xattrs(const Check *check)
{
	const uint8_t *set = section(check, FORMAT_SECTION_XATTR_SETS);
	uint64_t used = 0;
	for (uint32_t i = 0; i < check->tree.xattr_set_count; i++, set += XATTR_SET_SIZE) {
		uint32_t count = load_le32(set + XATTR_SET_AT_COUNT);
		if (load_le32(set + XATTR_SET_AT_FIRST) != used || count == 0 || count > check->item_count - used)
			return bad(check, "the xattr sets do not share out the xattrs");
		used += count;
	}
	if (used != check->item_count)
		return bad(check, "some xattrs belong to no set");

	const uint8_t *item = section(check, FORMAT_SECTION_XATTR_ITEMS);
	for (uint64_t i = 0; i < check->item_count; i++, item += XATTR_ITEM_SIZE) {
		uint32_t name = load_le32(item + XATTR_ITEM_AT_NAME), value = load_le32(item + XATTR_ITEM_AT_VALUE);
		uint32_t value_length = load_le32(item + XATTR_ITEM_AT_VALUE_LENGTH);
		uint16_t name_length = load_le16(item + XATTR_ITEM_AT_NAME_LENGTH);
		if (name_length == 0 || name_length > FORMAT_XATTR_NAME_MAX || value_length > FORMAT_XATTR_VALUE_MAX ||
		    load_le16(item + XATTR_ITEM_AT_RESERVED) != 0 ||
		    !range_within(name, name_length, check->strings_size) ||
		    !range_within(value, value_length, check->strings_size) || has_nul(check, name, name_length))
			return bad(check, "an xattr has an impossible name or value");
	}
	return 0;
}

static int check_target(const Check *check, uint32_t number, uint64_t offset, uint64_t size)
{
	if (size == 0 || size > FORMAT_TARGET_MAX || !range_within(offset, size, check->strings_size) ||
	    has_nul(check, offset, size))
		return bad_inode(check, number, "its link target is impossible");
	return 0;
}

static int check_lower_link(const Check *check, uint32_t number, const TreeInode *inode)
{
	int r = check_target(check, number, inode->data, inode->count);
	if (r < 0)
		return r;
	const char *target = tree_target(&check->tree, inode).data;
	if (target[0] == '/' || (inode->count >= 2 && target[0] == '.' && target[1] == '/'))
		return bad_inode(check, number, "its hard link target is not relative to the root");
	if (inode->size != 0 || check->tree.layer_count)
		return bad_inode(check, number, "a hard link to a lower layer does not belong here");
	return 0;
}

static int check_extents(Check *check, uint32_t number, const TreeInode *inode)
{
	if (inode->data != check->extents_used || inode->count > check->extent_count - check->extents_used)
		return bad_inode(check, number, "its extents are not the next ones");
	uint64_t end = 0;
	for (uint32_t i = 0; i < inode->count; i++) {
		TreeExtent extent;
		tree_extent(&check->tree, inode, i, &extent);
		if (extent.length == 0 || extent.file_offset < end ||
		    !range_within(extent.file_offset, extent.length, inode->size) ||
		    !range_within(extent.tar_offset, extent.length, check->data_limit))
			return bad_inode(check, number, "its extents are impossible");
		end = extent.file_offset + extent.length;
	}
	check->extents_used += inode->count;
	return 0;
}

static int check_regular(Check *check, uint32_t number, const TreeInode *inode)
{
	if (inode->size > INT64_MAX)
		return bad_inode(check, number, "its size is impossible");
	if (inode->flags & TREE_SPARSE)
		return check_extents(check, number, inode);
	if (!range_within(inode->data, inode->size, check->data_limit) || inode->count != 0)
		return bad_inode(check, number, "its data lies outside the layer");
	if (inode->size > 0 && inode->size < FORMAT_LARGE_FILE)
		check->packed++;
	return 0;
}

/* Name and type of one entry, and the entry's place among the names. */
static int check_entry(const Check *check, uint32_t directory, const uint8_t *entry, const TreeString *previous,
		       TreeString *ret_name)
{
	uint32_t target = load_le32(entry + DIRENT_AT_INODE), offset = load_le32(entry + DIRENT_AT_NAME);
	uint16_t length = load_le16(entry + DIRENT_AT_LENGTH);
	if (length == 0 || length > FORMAT_NAME_MAX || !range_within(offset, length, check->strings_size))
		return bad_inode(check, directory, "one of its entries has an impossible name");
	TreeString name = { .data = (const char *)section(check, FORMAT_SECTION_STRINGS) + offset, .size = length };
	if (memchr(name.data, '/', length) || memchr(name.data, '\0', length) ||
	    (name.data[0] == '.' && (length == 1 || (length == 2 && name.data[1] == '.'))))
		return bad_inode(check, directory, "one of its entries has a forbidden name");
	if (previous->size && tree_compare_names(*previous, name) >= 0)
		return bad_inode(check, directory, "its entries are out of order");
	if (target == 0 || target >= check->tree.inode_count ||
	    entry[DIRENT_AT_TYPE] != IFTODT(inode_field(check, target, INODE_AT_MODE)) ||
	    entry[DIRENT_AT_RESERVED] != 0)
		return bad_inode(check, directory, "one of its entries names an impossible inode");
	*ret_name = name;
	return 0;
}

static int check_directory(Check *check, uint32_t number, const TreeInode *inode)
{
	if (inode->size != 0 || !range_within(inode->data, inode->count, check->tree.dirent_count))
		return bad_inode(check, number, "its entries lie outside the table");
	const uint8_t *entry = section(check, FORMAT_SECTION_DIRENTS) + inode->data * DIRENT_SIZE;
	TreeString name = { 0 };
	uint32_t directories = 0;
	for (uint64_t i = inode->data; i < inode->data + inode->count; i++, entry += DIRENT_SIZE) {
		if (check->taken[i / 8] & 1u << i % 8)
			return bad_inode(check, number, "its entries belong to another directory too");
		check->taken[i / 8] |= (uint8_t)(1u << i % 8);
		int r = check_entry(check, number, entry, &name, &name);
		if (r < 0)
			return r;
		uint32_t target = load_le32(entry + DIRENT_AT_INODE);
		check->names[target]++;
		if (entry[DIRENT_AT_TYPE] == DT_DIR) {
			directories++;
			if (inode_field(check, target, INODE_AT_PARENT) != number)
				return bad_inode(check, target, "its parent does not name it");
		}
	}
	if (inode->nlink != (uint64_t)directories + 2)
		return bad_inode(check, number, "its link count is not 2 and its subdirectories");
	check->entries_used += inode->count;
	return 0;
}

static int check_content(Check *check, uint32_t number, const TreeInode *inode)
{
	if (inode->flags & TREE_LOWER_LINK)
		return inode->mode & S_IFMT ? bad_inode(check, number, "a hard link to a lower layer has a type")
					    : check_lower_link(check, number, inode);
	switch (inode->mode & S_IFMT) {
	case S_IFREG:
		return check_regular(check, number, inode);
	case S_IFDIR:
		return check_directory(check, number, inode);
	case S_IFLNK:
		if (inode->count != 0)
			break;
		return check_target(check, number, inode->data, inode->size);
	case S_IFIFO:
	case S_IFSOCK:
		if (inode->data != 0)
			break;
		/* fall through */
	case S_IFCHR:
	case S_IFBLK:
		if (inode->size != 0 || inode->count != 0)
			break;
		return 0;
	default:
		return bad_inode(check, number, "its mode names no type");
	}
	return bad_inode(check, number, "it has fields that its type does not use");
}

static int check_inode(Check *check, uint32_t number)
{
	TreeInode inode;
	tree_inode(&check->tree, number, &inode);
	bool directory = S_ISDIR(inode.mode);
	if (inode.mode & ~(S_IFMT | TREE_PERMISSIONS))
		return bad_inode(check, number, "its mode has unknown bits");
	if (inode.flags & ~(uint32_t)TREE_FLAGS || (inode.flags & TREE_IMPLIED && !directory) ||
	    (inode.flags & TREE_SPARSE && !S_ISREG(inode.mode)))
		return bad_inode(check, number, "its flags are impossible");
	if (inode.mtime_nsec > 999999999)
		return bad_inode(check, number, "its mtime is impossible");
	if (inode.xattr > check->tree.xattr_set_count)
		return bad_inode(check, number, "its xattrs do not exist");
	if (inode.layer != 0 && inode.layer >= check->tree.layer_count)
		return bad_inode(check, number, "its layer does not exist");
	if (number == 0 ? !directory || inode.parent != 0 : !directory && inode.parent != 0)
		return bad_inode(check, number, number ? "it is no directory but has a parent" : "it is not a root");
	return check_content(check, number, &inode);
}

/* After all directories: has every inode the names it counts? Leaves `names` zeroed. */
static int check_names(const Check *check)
{
	for (uint32_t i = 0; i < check->tree.inode_count; i++) {
		bool directory = S_ISDIR(inode_field(check, i, INODE_AT_MODE));
		uint32_t expected = i == 0 ? 0 : directory ? 1 : inode_field(check, i, INODE_AT_NLINK);
		if (check->names[i] != expected || (i > 0 && expected == 0))
			return bad_inode(check, i, "it has more or fewer names than it says");
		check->names[i] = 0;
	}
	return 0;
}

/*
 * Each directory but the root is now known to have one parent, a directory that names it: what is left to exclude is
 * a cycle. From each directory the parents are followed up to one seen before, which is the root, one that leads
 * there, or one of this walk.
 */
static int check_reachable(const Check *check)
{
	enum { NEW, WALKED, REACHED };
	uint32_t *state = check->names;
	state[0] = REACHED;
	for (uint32_t i = 0; i < check->tree.inode_count; i++) {
		if (state[i] != NEW || !S_ISDIR(inode_field(check, i, INODE_AT_MODE)))
			continue;
		uint32_t at = i;
		for (; state[at] == NEW; at = inode_field(check, at, INODE_AT_PARENT))
			state[at] = WALKED;
		if (state[at] == WALKED)
			return bad_inode(check, i, "it is in a circle of directories");
		for (at = i; state[at] == WALKED; at = inode_field(check, at, INODE_AT_PARENT))
			state[at] = REACHED;
	}
	return 0;
}

static int check_tree(Check *check)
{
	int r = check_xattrs(check);
	for (uint32_t i = 0; r == 0 && i < check->tree.inode_count; i++)
		r = check_inode(check, i);
	if (r < 0)
		return r;
	if (check->entries_used != check->tree.dirent_count)
		return bad(check, "some entries belong to no directory");
	if (check->extents_used != check->extent_count)
		return bad(check, "some extents belong to no file");
	const ImageSection *packed = &check->tree.image->sections[FORMAT_SECTION_PACKED_DIGESTS];
	if (packed->present && packed->size != check->packed * DIGEST_SIZE)
		return bad(check, "the digests of small files are more or fewer than these");
	r = check_names(check);
	return r < 0 ? r : check_reachable(check);
}

int tree_open(const Image *image, Tree *ret_tree, Error *error)
{
	Check check = { .tree.image = image, .error = error };
	int r = measure(&check);
	if (r < 0)
		return r;
	size_t names_size = (size_t)check.tree.inode_count * sizeof(uint32_t);
	_cleanup_free_ uint32_t *scratch = calloc(1, names_size + ((size_t)check.tree.dirent_count + 7) / 8);
	if (!scratch)
		return -ENOMEM;
	check.names = scratch;
	check.taken = (uint8_t *)(scratch + check.tree.inode_count);
	r = check_tree(&check);
	if (r < 0)
		return r;
	*ret_tree = check.tree;
	return 0;
}
