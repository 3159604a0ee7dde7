/* The merge of layers: what a view shows for given layers, written as one line a path. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/view/view.h"
#include "layer-fixture.h"

#define DIR   (S_IFDIR | 0755)
#define FILE_ (S_IFREG | 0644)
#define LAYER(...)                                                                      \
	{                                                                               \
		.paths = (const LayerPath[]){ __VA_ARGS__ },                            \
		.count = sizeof((const LayerPath[]){ __VA_ARGS__ }) / sizeof(LayerPath) \
	}

typedef struct Layer {
	const LayerPath *paths;
	size_t count;
} Layer;

typedef struct View {
	LayerFixture layers[8];
	size_t layer_count;
	uint8_t *bytes;
	size_t size;
	Image image;
	Tree tree;
} View;

static int build(const Layer *layers, size_t count, View *view, Error *error)
{
	Tree trees[8];
	Digest diff_ids[8];
	*view = (View){ .layer_count = count };
	for (size_t i = 0; i < count; i++) {
		layer_fixture_make(&view->layers[i], layers[i].paths, layers[i].count);
		trees[i] = view->layers[i].tree;
		memset(&diff_ids[i], (int)i + 1, sizeof(diff_ids[i]));
	}
	int r = view_build(trees, diff_ids, count, &view->bytes, &view->size, error);
	if (r < 0)
		return r;
	assert_int_equal(image_open(view->bytes, view->size, &view->image, error), 0);
	r = tree_open(&view->image, &view->tree, error);
	if (r < 0)
		fail_msg("the view is not valid: %s", error_text(error, r));
	return r;
}

static void done(View *view)
{
	for (size_t i = 0; i < view->layer_count; i++)
		layer_fixture_done(&view->layers[i]);
	free(view->bytes);
}

/* "path type layer data nlink" of everything below `directory`, in order. */
static void list(const Tree *tree, uint32_t number, const char *path, FILE *out)
{
	TreeInode directory;
	tree_inode(tree, number, &directory);
	for (uint32_t i = 0; i < directory.count; i++) {
		TreeDirent entry;
		TreeInode inode;
		char below[4096];
		tree_dirent(tree, directory.data + i, &entry);
		tree_inode(tree, entry.inode, &inode);
		assert_int_equal(entry.type, IFTODT(inode.mode));
		(void)snprintf(below, sizeof(below), "%s%s%.*s", path, *path ? "/" : "", (int)entry.name.size,
			       entry.name.data);
		if (S_ISDIR(inode.mode)) {
			(void)fprintf(out, "%s d %o t%d n%u\n", below, inode.mode & 07777, (int)inode.mtime_sec,
				      inode.nlink);
			assert_int_equal(inode.parent, number);
			list(tree, entry.inode, below, out);
		} else if (S_ISLNK(inode.mode)) {
			TreeString target = tree_target(tree, &inode);
			(void)fprintf(out, "%s -> %.*s\n", below, (int)target.size, target.data);
		} else {
			(void)fprintf(out, "%s f L%u @%u n%u\n", below, inode.layer, (unsigned)inode.data, inode.nlink);
		}
	}
}

static void expect(const Layer *layers, size_t count, const char *wanted)
{
	View view;
	Error error = { 0 };
	_cleanup_free_ char *got = NULL;
	size_t size;
	int r = build(layers, count, &view, &error);
	if (r < 0)
		fail_msg("view_build: %s", error_text(&error, r));
	FILE *out = open_memstream(&got, &size);
	list(&view.tree, 0, "", out);
	(void)fclose(out);
	assert_string_equal(got, wanted);
	done(&view);
}

#define EXPECT(wanted, ...) \
	expect((const Layer[]){ __VA_ARGS__ }, sizeof((const Layer[]){ __VA_ARGS__ }) / sizeof(Layer), wanted)

static void test_one_layer(void **state)
{
	(void)state;
	EXPECT("a d 755 t5 n2\n"
	       "a/x f L0 @512 n1\n"
	       "b -> a/x\n",
	       LAYER({ .path = "a", .mode = DIR, .data = 5 }, { .path = "a/x", .mode = FILE_, .data = 512 },
		     { .path = "b", .mode = S_IFLNK | 0777, .target = "a/x" }));
}

static void test_upper_wins_and_directories_merge(void **state)
{
	(void)state;
	EXPECT("d d 700 t9 n3\n"
	       "d/both f L1 @1024 n1\n"
	       "d/lower f L0 @512 n1\n"
	       "d/sub d 755 t0 n2\n"
	       "d/sub/deep f L0 @2048 n1\n"
	       "d/upper f L1 @1536 n1\n",
	       LAYER({ .path = "d", .mode = DIR, .data = 5 }, { .path = "d/lower", .mode = FILE_, .data = 512 },
		     { .path = "d/both", .mode = FILE_, .data = 100 }, { .path = "d/sub", .mode = DIR },
		     { .path = "d/sub/deep", .mode = FILE_, .data = 2048 }),
	       LAYER({ .path = "d", .mode = S_IFDIR | 0700, .data = 9 },
		     { .path = "d/both", .mode = FILE_, .data = 1024 },
		     { .path = "d/upper", .mode = FILE_, .data = 1536 }));
}

static void test_whiteouts(void **state)
{
	(void)state;
	EXPECT("kept f L0 @3 n1\n",
	       LAYER({ .path = "gone", .mode = FILE_, .data = 1 }, { .path = "tree", .mode = DIR },
		     { .path = "tree/x", .mode = FILE_, .data = 2 }, { .path = "kept", .mode = FILE_, .data = 3 }),
	       LAYER({ .path = ".wh.gone", .mode = FILE_ }, { .path = ".wh.tree", .mode = FILE_ },
		     { .path = ".wh.never", .mode = FILE_ }));
	/* A whiteout hides lower layers only: what its own or a higher layer has stays. */
	EXPECT("a f L1 @7 n1\n"
	       "b f L2 @8 n1\n",
	       LAYER({ .path = "a", .mode = FILE_, .data = 1 }, { .path = "b", .mode = FILE_, .data = 2 }),
	       LAYER({ .path = ".wh.a", .mode = FILE_ }, { .path = "a", .mode = FILE_, .data = 7 },
		     { .path = ".wh.b", .mode = FILE_ }),
	       LAYER({ .path = "b", .mode = FILE_, .data = 8 }));
	/* A directory beside its own whiteout starts anew. */
	EXPECT("d d 755 t6 n2\n"
	       "d/new f L1 @7 n1\n",
	       LAYER({ .path = "d", .mode = DIR, .data = 5 }, { .path = "d/old", .mode = FILE_, .data = 1 }),
	       LAYER({ .path = ".wh.d", .mode = FILE_ }, { .path = "d", .mode = DIR, .data = 6 },
		     { .path = "d/new", .mode = FILE_, .data = 7 }));
	/* The middle layer's directory is hidden by a whiteout above it, and the lowest one with it. */
	EXPECT("d d 755 t9 n2\n"
	       "d/c f L2 @3 n1\n",
	       LAYER({ .path = "d", .mode = DIR }, { .path = "d/a", .mode = FILE_, .data = 1 }),
	       LAYER({ .path = "d", .mode = DIR }, { .path = "d/b", .mode = FILE_, .data = 2 }),
	       LAYER({ .path = ".wh.d", .mode = FILE_ }, { .path = "d", .mode = DIR, .data = 9 },
		     { .path = "d/c", .mode = FILE_, .data = 3 }));
}

static void test_opaque_directories(void **state)
{
	(void)state;
	EXPECT("d d 755 t6 n2\n"
	       "d/new f L1 @7 n1\n",
	       LAYER({ .path = "d", .mode = DIR, .data = 5 }, { .path = "d/old", .mode = FILE_, .data = 1 }),
	       LAYER({ .path = "d", .mode = DIR, .data = 6 }, { .path = "d/.wh..wh..opq", .mode = FILE_ },
		     { .path = "d/new", .mode = FILE_, .data = 7 }));
	EXPECT("d d 755 t7 n2\n"
	       "d/b f L1 @2 n1\n"
	       "d/c f L2 @3 n1\n",
	       LAYER({ .path = "d", .mode = DIR }, { .path = "d/a", .mode = FILE_, .data = 1 }),
	       LAYER({ .path = "d", .mode = DIR }, { .path = "d/.wh..wh..opq", .mode = FILE_ },
		     { .path = "d/b", .mode = FILE_, .data = 2 }),
	       LAYER({ .path = "d", .mode = DIR, .data = 7 }, { .path = "d/c", .mode = FILE_, .data = 3 }));
	/* At the root. */
	EXPECT("new f L1 @2 n1\n", LAYER({ .path = "old", .mode = FILE_, .data = 1 }),
	       LAYER({ .path = ".wh..wh..opq", .mode = FILE_ }, { .path = "new", .mode = FILE_, .data = 2 }));
}

static void test_replaced_types(void **state)
{
	(void)state;
	EXPECT("x f L1 @2 n1\n", LAYER({ .path = "x", .mode = DIR }, { .path = "x/y", .mode = FILE_, .data = 1 }),
	       LAYER({ .path = "x", .mode = FILE_, .data = 2 }));
	EXPECT("x d 755 t0 n2\n"
	       "x/y f L1 @2 n1\n",
	       LAYER({ .path = "x", .mode = FILE_, .data = 1 }),
	       LAYER({ .path = "x", .mode = DIR }, { .path = "x/y", .mode = FILE_, .data = 2 }));
	/* A file between two directories hides the lower one. */
	EXPECT("x d 755 t8 n2\n"
	       "x/c f L2 @3 n1\n",
	       LAYER({ .path = "x", .mode = DIR }, { .path = "x/a", .mode = FILE_, .data = 1 }),
	       LAYER({ .path = "x", .mode = FILE_, .data = 2 }),
	       LAYER({ .path = "x", .mode = DIR, .data = 8 }, { .path = "x/c", .mode = FILE_, .data = 3 }));
}

static void test_implied_directory_takes_the_lower_metadata(void **state)
{
	(void)state;
	EXPECT("d d 711 t5 n2\n"
	       "d/new f L1 @2 n1\n",
	       LAYER({ .path = "d", .mode = S_IFDIR | 0711, .data = 5 }),
	       LAYER({ .path = "d", .mode = DIR, .flags = TREE_IMPLIED },
		     { .path = "d/new", .mode = FILE_, .data = 2 }));
	/* Opaque, it hides what the lower one holds and not what it is. */
	EXPECT("d d 711 t5 n2\n"
	       "d/new f L2 @2 n1\n",
	       LAYER({ .path = "d", .mode = S_IFDIR | 0711, .data = 5 }, { .path = "d/old", .mode = FILE_, .data = 1 }),
	       LAYER({ .path = "d", .mode = DIR, .flags = TREE_IMPLIED },
		     { .path = "d/middle", .mode = FILE_, .data = 3 }),
	       LAYER({ .path = "d", .mode = DIR, .flags = TREE_IMPLIED }, { .path = "d/.wh..wh..opq", .mode = FILE_ },
		     { .path = "d/new", .mode = FILE_, .data = 2 }));
	/* What was a file or was whited out says nothing. */
	EXPECT("d d 755 t0 n2\n"
	       "e d 755 t0 n2\n",
	       LAYER({ .path = "d", .mode = S_IFDIR | 0711, .data = 5 }, { .path = "e", .mode = FILE_, .data = 1 }),
	       LAYER({ .path = "d", .mode = DIR, .flags = TREE_IMPLIED }, { .path = ".wh.d", .mode = FILE_ },
		     { .path = "d/.wh..wh..opq", .mode = FILE_ }, { .path = "e", .mode = DIR, .flags = TREE_IMPLIED },
		     { .path = "e/.wh..wh..opq", .mode = FILE_ }));
}

static void test_hard_links(void **state)
{
	(void)state;
	/* One of three names is replaced above: two stay, and share an inode. */
	View view;
	Error error = { 0 };
	TreeInode root;
	TreeDirent a, c;
	const Layer layers[] = {
		LAYER({ .path = "a", .mode = FILE_, .data = 1 }, { .path = "b", .same = "a" },
		      { .path = "c", .same = "a" }),
		LAYER({ .path = "b", .mode = FILE_, .data = 2 }),
	};
	assert_int_equal(build(layers, 2, &view, &error), 0);
	tree_inode(&view.tree, 0, &root);
	assert_int_equal(tree_lookup(&view.tree, &root, "a", 1, &a), 0);
	assert_int_equal(tree_lookup(&view.tree, &root, "c", 1, &c), 0);
	assert_int_equal(a.inode, c.inode);
	done(&view);
	expect(layers, 2, "a f L0 @1 n2\nb f L1 @2 n1\nc f L0 @1 n2\n");
	/* All hidden but one. */
	EXPECT("c f L0 @1 n1\n",
	       LAYER({ .path = "a", .mode = FILE_, .data = 1 }, { .path = "b", .same = "a" },
		     { .path = "c", .same = "a" }),
	       LAYER({ .path = ".wh.a", .mode = FILE_ }, { .path = ".wh.b", .mode = FILE_ }));
}

static void test_lower_hard_links(void **state)
{
	(void)state;
	EXPECT("d d 755 t0 n2\n"
	       "d/t f L0 @1 n3\n"
	       "l f L0 @1 n3\n"
	       "m f L0 @1 n3\n",
	       LAYER({ .path = "d", .mode = DIR }, { .path = "d/t", .mode = FILE_, .data = 1 }),
	       LAYER({ .path = "l", .target = "d/t" }), LAYER({ .path = "m", .target = "l" }));
}

#define LINK_ (S_IFLNK | 0777)

/* As umoci unpacks it: what stands on the way is followed, within the layers, and the last component is not. */
static void test_lower_hard_links_behind_symlinks(void **state)
{
	(void)state;
	EXPECT("a -> /usr/lib\n"
	       "b f L0 @1 n6\n"
	       "c f L0 @1 n6\n"
	       "d f L0 @1 n6\n"
	       "e -> x\n"
	       "f f L0 @1 n6\n"
	       "g f L1 @2 n2\n"
	       "lib -> usr/lib\n"
	       "new d 755 t0 n2\n"
	       "new/y f L1 @2 n2\n"
	       "usr d 755 t0 n3\n"
	       "usr/lib d 755 t0 n2\n"
	       "usr/lib/last -> x\n"
	       "usr/lib/x f L0 @1 n6\n"
	       "usr/lower -> /lib/.\n"
	       "usr/out -> ../../../new//./\n"
	       "usr/up -> ../a\n"
	       "z f L0 @1 n6\n",
	       LAYER({ .path = "usr", .mode = DIR }, { .path = "usr/lib", .mode = DIR },
		     { .path = "usr/lib/x", .mode = FILE_, .data = 1 },
		     { .path = "usr/lib/last", .mode = LINK_, .target = "x" },
		     { .path = "usr/up", .mode = LINK_, .target = "../a" },
		     { .path = "usr/lower", .mode = LINK_, .target = "/lib/." },
		     { .path = "usr/out", .mode = LINK_, .target = "../../../new//./" },
		     { .path = "lib", .mode = LINK_, .target = "usr/lib" },
		     { .path = "a", .mode = LINK_, .target = "/usr/lib" }),
	       LAYER({ .path = "new", .mode = DIR }, { .path = "new/y", .mode = FILE_, .data = 2 }),
	       LAYER({ .path = "b", .target = "lib/x" }, { .path = "c", .target = "a/x" },
		     { .path = "d", .target = "usr/up/x" }, { .path = "e", .target = "lib/last" },
		     { .path = "f", .target = "usr/lower/x" }, { .path = "g", .target = "usr/out/y" }),
	       LAYER({ .path = "z", .target = "usr/lower/../../lib/x" }));
}

static void expect_nowhere(const Layer *layers, size_t count)
{
	View view;
	Error error = { 0 };
	assert_int_equal(build(layers, count, &view, &error), -EBADMSG);
	assert_non_null(strstr(error.message, "layer 2 holds a hard link"));
	done(&view);
}

static void test_symlinks_that_lead_nowhere(void **state)
{
	(void)state;
	static char longest[4001];
	for (size_t i = 0; i < sizeof(longest) - 1; i++)
		longest[i] = i % 2 ? '/' : 'a';
	memcpy(longest, "long/", 5);
	const LayerPath lower[] = {
		{ .path = "f", .mode = FILE_ },
		{ .path = "loop", .mode = LINK_, .target = "loop" },
		{ .path = "swap", .mode = LINK_, .target = "/paws/" },
		{ .path = "paws", .mode = LINK_, .target = "swap/swap" },
		{ .path = "file", .mode = LINK_, .target = "f" },
		{ .path = "none", .mode = LINK_, .target = "gone" },
		{ .path = "root", .mode = LINK_, .target = "../.." },
		{ .path = "long", .mode = LINK_, .target = longest },
	};
	static const char *const targets[] = { "loop/x", "swap/x",  "file/x", "none/x",
					       "root/x", "root/..", "f/..",   "long/x" };
	for (size_t i = 0; i < sizeof(targets) / sizeof(*targets); i++)
		expect_nowhere(
			(const Layer[]){ { .paths = lower, .count = 8 }, LAYER({ .path = "l", .target = targets[i] }) },
			2);
}

/* Symlinks that lead far about and back: a layer may have a million links through them. */
static void test_symlinks_that_take_long(void **state)
{
	(void)state;
	static char about[4001];
	for (size_t i = 0; i < sizeof(about) - 1; i++)
		about[i] = "d/../"[i % 5];
	const LayerPath lower[] = {
		{ .path = "d", .mode = DIR },
		{ .path = "f", .mode = FILE_ },
		{ .path = "about", .mode = LINK_, .target = about },
	};
	Layer layers[] = { { .paths = lower, .count = 3 }, LAYER({ .path = "l", .target = "about/about/f" }) };
	View view;
	assert_int_equal(build(layers, 2, &view, NULL), 0);
	done(&view);
	layers[1] = (Layer)LAYER({ .path = "l", .target = "about/about/about/f" });
	expect_nowhere(layers, 2);
}

static void test_lower_hard_link_without_target(void **state)
{
	(void)state;
	const Layer layers[] = { LAYER({ .path = "x", .mode = FILE_ }, { .path = "dir", .mode = DIR }),
				 LAYER({ .path = "l", .target = "d/gone" }) };
	const Layer to_directory[] = { LAYER({ .path = "dir", .mode = DIR }), LAYER({ .path = "l", .target = "dir" }) };
	const Layer lowest[] = { LAYER({ .path = "l", .target = "x" }) };
	View view;
	Error error = { 0 };
	assert_int_equal(build(layers, 2, &view, &error), -EBADMSG);
	assert_non_null(strstr(error.message, "layer 2 holds a hard link to \"d/gone\""));
	done(&view);
	assert_int_equal(build(to_directory, 2, &view, &error), -EBADMSG);
	done(&view);
	assert_int_equal(build(lowest, 1, &view, &error), -EBADMSG);
	done(&view);
}

static void test_same_input_same_bytes(void **state)
{
	(void)state;
	const Layer layers[] = {
		LAYER({ .path = "d", .mode = DIR }, { .path = "d/a", .mode = FILE_, .data = 1 },
		      { .path = "d/b", .mode = FILE_, .data = 2 }),
		LAYER({ .path = "d", .mode = DIR }, { .path = "d/.wh.a", .mode = FILE_ },
		      { .path = "d/c", .mode = FILE_, .data = 3 }),
	};
	View one, two;
	Error error = { 0 };
	assert_int_equal(build(layers, 2, &one, &error), 0);
	assert_int_equal(build(layers, 2, &two, &error), 0);
	assert_int_equal(one.size, two.size);
	assert_memory_equal(one.bytes, two.bytes, one.size);
	assert_int_equal(one.tree.layer_count, 2);
	Digest diff_id;
	tree_layer(&one.tree, 1, &diff_id);
	assert_int_equal(diff_id.bytes[0], 2);
	done(&one);
	done(&two);
}

static void test_chain_id(void **state)
{
	(void)state;
	/* Computed with sha256sum from the rule in OCI image-spec 1.1, config.md. */
	Digest diff_ids[3], chain;
	char text[DIGEST_TEXT_SIZE];
	for (int i = 0; i < 3; i++)
		memset(&diff_ids[i], 0x11 * (i + 1), sizeof(diff_ids[i]));
	assert_int_equal(view_chain_id(diff_ids, 0, &chain), -EINVAL);
	assert_int_equal(view_chain_id(diff_ids, 1, &chain), 0);
	assert_true(digest_equal(&chain, &diff_ids[0]));
	assert_int_equal(view_chain_id(diff_ids, 2, &chain), 0);
	assert_string_equal(digest_text(&chain, text),
			    "sha256:9932074217c35353d2e03a3f5a86549f7c67bfeb0ba53e23d69f4d4c8f7958f5");
	assert_int_equal(view_chain_id(diff_ids, 3, &chain), 0);
	assert_string_equal(digest_text(&chain, text),
			    "sha256:50127c0d6b338be78246434b4bce23ecf75e505158ea0bbd15effeb162fbf3ec");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_layer),
		cmocka_unit_test(test_upper_wins_and_directories_merge),
		cmocka_unit_test(test_whiteouts),
		cmocka_unit_test(test_opaque_directories),
		cmocka_unit_test(test_replaced_types),
		cmocka_unit_test(test_implied_directory_takes_the_lower_metadata),
		cmocka_unit_test(test_hard_links),
		cmocka_unit_test(test_lower_hard_links),
		cmocka_unit_test(test_lower_hard_links_behind_symlinks),
		cmocka_unit_test(test_symlinks_that_lead_nowhere),
		cmocka_unit_test(test_symlinks_that_take_long),
		cmocka_unit_test(test_lower_hard_link_without_target),
		cmocka_unit_test(test_same_input_same_bytes),
		cmocka_unit_test(test_chain_id),
	};
	return cmocka_run_group_tests_name("view", tests, NULL, NULL);
}
