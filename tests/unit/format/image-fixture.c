#include "image-fixture.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "fs/format/chunk-table.h"

static TreeString text(const char *data)
{
	return (TreeString){ .data = data, .size = strlen(data) };
}

static void add(TreeWriter *writer, TreeInode inode, TreeExtras extras)
{
	uint32_t number;
	assert_int_equal(tree_writer_add_inode(writer, &inode, &extras, &number), 0);
}

static void add_sample_inodes(TreeWriter *writer, bool is_view)
{
	const TreeXattr two[] = { { text("user.a"), text("1") }, { text("user.b"), text("") } };
	const TreeXattr odd[] = { { text("user.odd"), { "x\0\"\n\xff\\", 6 } } };
	const TreeExtent extents[] = { { 0, 16384, 4096 }, { 8192, 20480, 100 } };
	const TreeExtras none = { 0 };

	add(writer, (TreeInode){ .mode = S_IFDIR | 0755, .nlink = 4, .mtime_sec = 1700000000 }, none);
	add(writer, (TreeInode){ .mode = S_IFDIR | 01777, .nlink = 2, .uid = 1, .gid = 2, .mtime_sec = -5 }, none);
	add(writer,
	    (TreeInode){ .mode = S_IFREG | 04755, .nlink = 2, .size = 1000, .data = 1024, .mtime_nsec = 999999999 },
	    none);
	add(writer, (TreeInode){ .mode = S_IFREG | 0600, .nlink = 1, .size = 5000, .data = 4096, .layer = is_view },
	    (TreeExtras){ .xattrs = two, .xattr_count = 2 });
	add(writer, (TreeInode){ .mode = S_IFLNK | 0777, .nlink = 1 }, (TreeExtras){ .target = text("../usr/issue") });
	add(writer, (TreeInode){ .mode = S_IFREG | 0644, .nlink = 1, .flags = TREE_SPARSE, .size = 100000 },
	    (TreeExtras){ .extents = extents, .extent_count = 2, .xattrs = two, .xattr_count = 2 });
	add(writer, (TreeInode){ .mode = S_IFCHR | 0666, .nlink = 1, .data = UINT64_C(1) << 32 | 3 }, none);
	add(writer, (TreeInode){ .mode = S_IFIFO | 0600, .nlink = 1 }, (TreeExtras){ .xattrs = odd, .xattr_count = 1 });
	add(writer, (TreeInode){ .mode = S_IFDIR | 0755, .nlink = 3, .flags = TREE_IMPLIED }, none);
	add(writer, (TreeInode){ .mode = S_IFDIR | 0755, .nlink = 2, .parent = SAMPLE_USR }, none);
	if (!is_view)
		add(writer, (TreeInode){ .nlink = 1, .flags = TREE_LOWER_LINK },
		    (TreeExtras){ .target = text("bin/sh") });
}

/* Directories on purpose not in the order of their inodes. */
static void add_sample_entries(TreeWriter *writer, bool is_view)
{
	const TreeDirent usr[] = { { SAMPLE_LIB, DT_DIR, text("lib") } };
	const TreeDirent root[] = {
		{ SAMPLE_ETC, DT_DIR, text("etc") },       { SAMPLE_FIFO, DT_FIFO, { "f\n\"\xc3\xa9", 5 } },
		{ SAMPLE_NULL, DT_CHR, text("null") },     { SAMPLE_PASSWD, DT_REG, text("passwd") },
		{ SAMPLE_SPARSE, DT_REG, text("sparse") }, { SAMPLE_USR, DT_DIR, text("usr") },
		{ SAMPLE_LOWER, DT_UNKNOWN, text("zsh") },
	};
	const TreeDirent etc[] = {
		{ SAMPLE_ISSUE, DT_LNK, text("issue") },
		{ SAMPLE_PASSWD, DT_REG, text("passwd") },
		{ SAMPLE_SHADOW, DT_REG, text("shadow") },
	};
	assert_int_equal(tree_writer_add_entries(writer, SAMPLE_USR, usr, 1), 0);
	assert_int_equal(tree_writer_add_entries(writer, SAMPLE_ROOT, root, is_view ? 6 : 7), 0);
	assert_int_equal(tree_writer_add_entries(writer, SAMPLE_ETC, etc, 3), 0);
}

static void add_chunks(ImageWriter *image)
{
	_cleanup_(chunk_table_writer_free_p) ChunkTableWriter *chunks = NULL;
	assert_int_equal(chunk_table_writer_new(&chunks), 0);
	assert_int_equal(chunk_table_writer_add(chunks, 40000, 1000, &(Digest){ { 1 } }), 0);
	assert_int_equal(chunk_table_writer_add(chunks, 250000, 2000, &(Digest){ { 2 } }), 0);
	assert_int_equal(chunk_table_writer_add(chunks, 10000, 3000, &(Digest){ { 3 } }), 0);
	assert_int_equal(chunk_table_writer_finish(chunks, image), 0);
}

uint8_t *sample_image(uint32_t kind, size_t *ret_size)
{
	bool is_view = kind == FORMAT_KIND_VIEW;
	const ImageHeader header = {
		.kind = kind,
		.codec = is_view ? FORMAT_CODEC_NONE : FORMAT_CODEC_LZ4,
		.tar_size = is_view ? 0 : SAMPLE_TAR_SIZE,
		.chunks_size = is_view ? 0 : 6000,
		.id = { { 7, 8, 9 } },
	};
	const Digest layers[] = { { { 11 } }, { { 12 } } }, packed = { { 13 } };
	_cleanup_(tree_writer_free_p) TreeWriter *tree = NULL;
	_cleanup_(image_writer_free_p) ImageWriter *image = NULL;
	uint8_t *data;

	assert_int_equal(tree_writer_new(&tree), 0);
	assert_int_equal(image_writer_new(&header, &image), 0);
	add_sample_inodes(tree, is_view);
	add_sample_entries(tree, is_view);
	if (!is_view)
		add_chunks(image);
	assert_int_equal(tree_writer_finish(tree, image), 0);
	if (is_view)
		assert_int_equal(image_writer_add(image, FORMAT_SECTION_LAYERS, FORMAT_SECTION_MANDATORY, layers,
						  sizeof(layers)),
				 0);
	else
		assert_int_equal(image_writer_add(image, FORMAT_SECTION_PACKED_DIGESTS, 0, &packed, sizeof(packed)), 0);
	assert_int_equal(image_writer_finish(image, &data, ret_size), 0);
	return data;
}

uint8_t *tree_image(TreeWriter *tree, uint32_t tar_size, size_t *ret_size)
{
	const ImageHeader header = {
		.kind = FORMAT_KIND_INDEX,
		.codec = FORMAT_CODEC_LZ4,
		.tar_size = tar_size,
		.chunks_size = tar_size ? 1 : 0,
	};
	_cleanup_(chunk_table_writer_free_p) ChunkTableWriter *chunks = NULL;
	_cleanup_(image_writer_free_p) ImageWriter *image = NULL;
	uint8_t *data;
	assert_int_equal(chunk_table_writer_new(&chunks), 0);
	if (tar_size)
		assert_int_equal(chunk_table_writer_add(chunks, tar_size, 1, &(Digest){ { 0 } }), 0);
	assert_int_equal(image_writer_new(&header, &image), 0);
	assert_int_equal(chunk_table_writer_finish(chunks, image), 0);
	assert_int_equal(tree_writer_finish(tree, image), 0);
	assert_int_equal(image_writer_finish(image, &data, ret_size), 0);
	return data;
}
