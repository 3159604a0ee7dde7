#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/format/chunk-table.h"
#include "fs/format/index-dump-text.h"
#include "fs/format/index-dump.h"
#include "fs/format/tree.h"

/* Printable ASCII stands for itself, but for quote and backslash; every other byte is \xHH. */
static void put_string(TreeString string, FILE *file)
{
	putc('"', file);
	for (size_t i = 0; i < string.size; i++) {
		unsigned char byte = (unsigned char)string.data[i];
		if (byte >= 0x20 && byte < 0x7f && byte != '"' && byte != '\\')
			putc(byte, file);
		else
			fprintf(file, "\\x%02x", byte);
	}
	putc('"', file);
}

static void put_digest(const char *word, const Digest *digest, FILE *file)
{
	char hex[DIGEST_HEX_SIZE];
	fprintf(file, "%s %s\n", word, digest_hex(digest, hex));
}

static void put_header(const ImageHeader *header, FILE *file)
{
	char hex[DIGEST_HEX_SIZE];
	fprintf(file, DUMP_TITLE "\nheader kind=%u codec=%u tar=%" PRIu64 " chunks=%" PRIu64 " id=%s\n", header->kind,
		header->codec, header->tar_size, header->chunks_size, digest_hex(&header->id, hex));
}

static void put_chunks(const ChunkTable *table, FILE *file)
{
	char hex[DIGEST_HEX_SIZE];
	for (uint32_t i = 0; i < table->count; i++) {
		Chunk chunk;
		chunk_table_get(table, i, &chunk);
		fprintf(file, "chunk tar=%u frame=%u digest=%s\n", chunk.tar_size, chunk.blob_size,
			digest_hex(&chunk.digest, hex));
	}
}

/* The fields that lie outside the inode. */
static void put_extras(const Tree *tree, const TreeInode *inode, FILE *file)
{
	if (S_ISLNK(inode->mode) || inode->flags & TREE_LOWER_LINK) {
		fputs("target ", file);
		put_string(tree_target(tree, inode), file);
		putc('\n', file);
	}
	for (uint32_t i = 0; inode->flags & TREE_SPARSE && i < inode->count; i++) {
		TreeExtent extent;
		tree_extent(tree, inode, i, &extent);
		fprintf(file, "extent file=%" PRIu64 " tar=%" PRIu64 " length=%" PRIu64 "\n", extent.file_offset,
			extent.tar_offset, extent.length);
	}
	for (uint32_t i = 0; i < tree_xattr_count(tree, inode); i++) {
		TreeXattr xattr;
		tree_xattr(tree, inode, i, &xattr);
		fputs("xattr ", file);
		put_string(xattr.name, file);
		putc(' ', file);
		put_string(xattr.value, file);
		putc('\n', file);
	}
}

static void put_inodes(const Tree *tree, FILE *file)
{
	for (uint32_t i = 0; i < tree->inode_count; i++) {
		TreeInode inode;
		tree_inode(tree, i, &inode);
		/* Data is a place in another section unless it is in the tar or a device's number. */
		bool inner =
			S_ISDIR(inode.mode) || S_ISLNK(inode.mode) || inode.flags & (TREE_SPARSE | TREE_LOWER_LINK);
		fprintf(file,
			"inode %u mode=%07o uid=%u gid=%u nlink=%u mtime=%" PRId64 " nsec=%u flags=%u size=%" PRIu64
			" data=%" PRIu64 " parent=%u layer=%u\n",
			i, inode.mode, inode.uid, inode.gid, inode.nlink, inode.mtime_sec, inode.mtime_nsec,
			inode.flags, inode.size, inner ? 0 : inode.data, inode.parent, inode.layer);
		put_extras(tree, &inode, file);
	}
}

static void put_entries(const Tree *tree, uint32_t directory, FILE *file)
{
	TreeInode inode;
	tree_inode(tree, directory, &inode);
	fprintf(file, "entries %u\n", directory);
	for (uint64_t i = inode.data; i < inode.data + inode.count; i++) {
		TreeDirent entry;
		tree_dirent(tree, i, &entry);
		fprintf(file, "entry %c %u ", DUMP_TYPES[entry.type], entry.inode);
		put_string(entry.name, file);
		putc('\n', file);
	}
}

/* Directories in the order in which their entries stand in the table, which the names in strings follow. */
static int put_directories(const Tree *tree, FILE *file)
{
	/* By the number of a directory's first entry: the directory's own number. */
	_cleanup_free_ uint32_t *owners = calloc((size_t)tree->dirent_count + 1, sizeof(*owners));
	_cleanup_free_ uint32_t *counts = calloc((size_t)tree->dirent_count + 1, sizeof(*counts));
	if (!owners || !counts)
		return -ENOMEM;
	for (uint32_t i = 0; i < tree->inode_count; i++) {
		TreeInode inode;
		tree_inode(tree, i, &inode);
		if (S_ISDIR(inode.mode) && inode.count) {
			owners[inode.data] = i;
			counts[inode.data] = inode.count;
		}
	}
	for (uint64_t first = 0; first < tree->dirent_count; first += counts[first])
		put_entries(tree, owners[first], file);
	return 0;
}

static void put_packed(const ImageSection *packed, FILE *file)
{
	if (!packed->present)
		return;
	fputs("packed\n", file);
	for (uint64_t at = 0; at < packed->size; at += DIGEST_SIZE) {
		Digest digest;
		memcpy(digest.bytes, packed->data + at, DIGEST_SIZE);
		put_digest("digest", &digest, file);
	}
}

int index_dump_write(const Image *image, FILE *file)
{
	Tree tree;
	ChunkTable chunks = { 0 };
	int r = tree_open(image, &tree, NULL);
	if (r == 0 && image->header.kind == FORMAT_KIND_INDEX)
		r = chunk_table_open(image, &chunks, NULL);
	if (r < 0)
		return r;

	put_header(&image->header, file);
	for (uint32_t i = 0; i < tree.layer_count; i++) {
		Digest diff_id;
		tree_layer(&tree, i, &diff_id);
		put_digest("layer", &diff_id, file);
	}
	put_chunks(&chunks, file);
	put_inodes(&tree, file);
	r = put_directories(&tree, file);
	if (r < 0)
		return r;
	put_packed(&image->sections[FORMAT_SECTION_PACKED_DIGESTS], file);
	errno = 0;
	if (fflush(file) != 0 || ferror(file))
		return errno ? -errno : -EIO;
	return 0;
}
