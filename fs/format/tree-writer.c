#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/base/bytes.h"
#include "fs/format/buffer.h"
#include "fs/format/tree-layout.h"
#include "fs/format/tree.h"

struct TreeWriter {
	uint32_t inode_count;
	uint32_t extent_count;
	uint32_t item_count;
	uint32_t last_set_items; /* of the last xattr set: how many items, the last ones */
	Buffer inodes;
	Buffer dirents; /* name offsets count from the start of `names` until the tree is finished */
	Buffer extents;
	Buffer sets;
	Buffer items;
	Buffer strings; /* targets and xattrs, in inode order */
	Buffer names;   /* of entries; follow `strings` in the finished section */
};

int tree_writer_new(TreeWriter **ret_writer)
{
	TreeWriter *writer = calloc(1, sizeof(*writer));
	if (!writer)
		return -ENOMEM;
	*ret_writer = writer;
	return 0;
}

TreeWriter *tree_writer_free(TreeWriter *writer)
{
	if (writer) {
		buffer_done(&writer->inodes);
		buffer_done(&writer->dirents);
		buffer_done(&writer->extents);
		buffer_done(&writer->sets);
		buffer_done(&writer->items);
		buffer_done(&writer->strings);
		buffer_done(&writer->names);
		free(writer);
	}
	return NULL;
}

/* Appends to a section whose offsets are 32 bits wide. */
static int add_string(Buffer *buffer, TreeString string, uint32_t *ret_offset)
{
	if (buffer->size > UINT32_MAX || string.size > UINT32_MAX - buffer->size)
		return -EFBIG;
	uint32_t offset = (uint32_t)buffer->size;
	int r = buffer_append(buffer, string.data, string.size);
	if (r == 0)
		*ret_offset = offset;
	return r;
}

static bool string_equals(const Buffer *strings, uint32_t offset, uint32_t size, TreeString string)
{
	return size == string.size && (size == 0 || memcmp(strings->data + offset, string.data, size) == 0);
}

/* Are these the xattrs of the last set written? */
static bool is_last_set(const TreeWriter *writer, const TreeXattr *xattrs, size_t count)
{
	if (writer->last_set_items != count)
		return false;
	const uint8_t *item = writer->items.data + writer->items.size - count * XATTR_ITEM_SIZE;
	for (size_t i = 0; i < count; i++, item += XATTR_ITEM_SIZE)
		if (!string_equals(&writer->strings, load_le32(item + XATTR_ITEM_AT_NAME),
				   load_le16(item + XATTR_ITEM_AT_NAME_LENGTH), xattrs[i].name) ||
		    !string_equals(&writer->strings, load_le32(item + XATTR_ITEM_AT_VALUE),
				   load_le32(item + XATTR_ITEM_AT_VALUE_LENGTH), xattrs[i].value))
			return false;
	return true;
}

static int add_item(TreeWriter *writer, const TreeXattr *xattr)
{
	uint32_t name, value;
	if (xattr->name.size > UINT16_MAX || writer->item_count == UINT32_MAX)
		return -EFBIG;
	int r = add_string(&writer->strings, xattr->name, &name);
	if (r == 0)
		r = add_string(&writer->strings, xattr->value, &value);
	if (r < 0)
		return r;
	uint8_t *item = buffer_extend(&writer->items, XATTR_ITEM_SIZE);
	if (!item)
		return -ENOMEM;
	store_le32(item + XATTR_ITEM_AT_NAME, name);
	store_le32(item + XATTR_ITEM_AT_VALUE, value);
	store_le32(item + XATTR_ITEM_AT_VALUE_LENGTH, (uint32_t)xattr->value.size);
	store_le16(item + XATTR_ITEM_AT_NAME_LENGTH, (uint16_t)xattr->name.size);
	store_le16(item + XATTR_ITEM_AT_RESERVED, 0);
	writer->item_count++;
	return 0;
}

/* The number of the set, plus 1; consecutive equal lists share one. */
static int add_set(TreeWriter *writer, const TreeXattr *xattrs, size_t count, uint32_t *ret_set)
{
	if (count == 0) {
		*ret_set = 0;
		return 0;
	}
	if (!is_last_set(writer, xattrs, count)) {
		uint32_t first = writer->item_count;
		for (size_t i = 0; i < count; i++) {
			int r = add_item(writer, &xattrs[i]);
			if (r < 0)
				return r;
		}
		uint8_t *set = buffer_extend(&writer->sets, XATTR_SET_SIZE);
		if (!set)
			return -ENOMEM;
		store_le32(set + XATTR_SET_AT_FIRST, first);
		store_le32(set + XATTR_SET_AT_COUNT, writer->item_count - first);
		writer->last_set_items = writer->item_count - first;
	}
	*ret_set = (uint32_t)(writer->sets.size / XATTR_SET_SIZE);
	return 0;
}

static int add_extents(TreeWriter *writer, const TreeExtent *extents, size_t count, uint64_t *ret_first)
{
	if (count > UINT32_MAX - writer->extent_count)
		return -EFBIG;
	for (size_t i = 0; i < count; i++) {
		uint8_t *extent = buffer_extend(&writer->extents, EXTENT_SIZE);
		if (!extent)
			return -ENOMEM;
		store_le64(extent + EXTENT_AT_FILE, extents[i].file_offset);
		store_le64(extent + EXTENT_AT_TAR, extents[i].tar_offset);
		store_le64(extent + EXTENT_AT_LENGTH, extents[i].length);
	}
	*ret_first = writer->extent_count;
	writer->extent_count += (uint32_t)count;
	return 0;
}

/* The fields data, count and size as the type wants them. */
static int add_content(TreeWriter *writer, const TreeExtras *extras, TreeInode *inode)
{
	bool lower = inode->flags & TREE_LOWER_LINK;
	if (lower || S_ISLNK(inode->mode)) {
		uint32_t offset;
		int r = add_string(&writer->strings, extras->target, &offset);
		if (r < 0)
			return r;
		inode->data = offset;
		inode->count = lower ? (uint32_t)extras->target.size : 0;
		inode->size = lower ? 0 : extras->target.size;
	} else if (inode->flags & TREE_SPARSE) {
		inode->count = (uint32_t)extras->extent_count;
		return add_extents(writer, extras->extents, extras->extent_count, &inode->data);
	} else {
		inode->count = 0;
		if (S_ISDIR(inode->mode))
			inode->data = 0;
	}
	return 0;
}

static void put_inode(const TreeInode *inode, uint8_t *to)
{
	store_le32(to + INODE_AT_MODE, inode->mode);
	store_le32(to + INODE_AT_UID, inode->uid);
	store_le32(to + INODE_AT_GID, inode->gid);
	store_le32(to + INODE_AT_NLINK, inode->nlink);
	store_le64(to + INODE_AT_MTIME_SEC, (uint64_t)inode->mtime_sec);
	store_le32(to + INODE_AT_MTIME_NSEC, inode->mtime_nsec);
	store_le32(to + INODE_AT_FLAGS, inode->flags);
	store_le64(to + INODE_AT_SIZE, inode->size);
	store_le64(to + INODE_AT_DATA, inode->data);
	store_le32(to + INODE_AT_COUNT, inode->count);
	store_le32(to + INODE_AT_PARENT, inode->parent);
	store_le32(to + INODE_AT_XATTR, inode->xattr);
	store_le32(to + INODE_AT_LAYER, inode->layer);
}

int tree_writer_add_inode(TreeWriter *writer, const TreeInode *inode, const TreeExtras *extras, uint32_t *ret_number)
{
	static const TreeExtras nothing;
	if (!extras)
		extras = &nothing;
	if (writer->inode_count == UINT32_MAX)
		return -EFBIG;
	TreeInode complete = *inode;
	int r = add_content(writer, extras, &complete);
	if (r == 0)
		r = add_set(writer, extras->xattrs, extras->xattr_count, &complete.xattr);
	if (r < 0)
		return r;
	uint8_t *to = buffer_extend(&writer->inodes, INODE_SIZE);
	if (!to)
		return -ENOMEM;
	put_inode(&complete, to);
	*ret_number = writer->inode_count++;
	return 0;
}

static int add_entry(TreeWriter *writer, const TreeDirent *entry)
{
	uint32_t name;
	if (entry->name.size > UINT16_MAX)
		return -EFBIG;
	int r = add_string(&writer->names, entry->name, &name);
	if (r < 0)
		return r;
	uint8_t *to = buffer_extend(&writer->dirents, DIRENT_SIZE);
	if (!to)
		return -ENOMEM;
	store_le32(to + DIRENT_AT_INODE, entry->inode);
	store_le32(to + DIRENT_AT_NAME, name);
	store_le16(to + DIRENT_AT_LENGTH, (uint16_t)entry->name.size);
	to[DIRENT_AT_TYPE] = entry->type;
	to[DIRENT_AT_RESERVED] = 0;
	return 0;
}

int tree_writer_add_entries(TreeWriter *writer, uint32_t directory, const TreeDirent *entries, size_t count)
{
	size_t first = writer->dirents.size / DIRENT_SIZE;
	if (directory >= writer->inode_count)
		return -EINVAL;
	if (first > UINT32_MAX || count > UINT32_MAX - first)
		return -EFBIG;
	if (count == 0)
		return 0;
	for (size_t i = 0; i < count; i++) {
		int r = add_entry(writer, &entries[i]);
		if (r < 0)
			return r;
	}
	uint8_t *inode = writer->inodes.data + (size_t)directory * INODE_SIZE;
	store_le64(inode + INODE_AT_DATA, first);
	store_le32(inode + INODE_AT_COUNT, (uint32_t)count);
	return 0;
}

/* Moves the names behind the other strings. */
static int join_strings(TreeWriter *writer)
{
	size_t base = writer->strings.size;
	if (writer->names.size > UINT32_MAX - base)
		return -EFBIG;
	int r = buffer_append(&writer->strings, writer->names.data, writer->names.size);
	if (r < 0)
		return r;
	buffer_done(&writer->names);
	for (size_t at = 0; at < writer->dirents.size; at += DIRENT_SIZE) {
		uint8_t *name = writer->dirents.data + at + DIRENT_AT_NAME;
		store_le32(name, load_le32(name) + (uint32_t)base);
	}
	return 0;
}

int tree_writer_finish(TreeWriter *writer, ImageWriter *image)
{
	int r = join_strings(writer);
	if (r < 0)
		return r;
	const struct {
		FormatSection type;
		Buffer *buffer;
	} sections[] = {
		{ FORMAT_SECTION_INODES, &writer->inodes },   { FORMAT_SECTION_DIRENTS, &writer->dirents },
		{ FORMAT_SECTION_STRINGS, &writer->strings }, { FORMAT_SECTION_EXTENTS, &writer->extents },
		{ FORMAT_SECTION_XATTR_SETS, &writer->sets }, { FORMAT_SECTION_XATTR_ITEMS, &writer->items },
	};
	for (size_t i = 0; i < ELEMENTS(sections); i++) {
		r = image_writer_take(image, sections[i].type, FORMAT_SECTION_MANDATORY, sections[i].buffer);
		if (r < 0)
			return r;
	}
	return 0;
}
