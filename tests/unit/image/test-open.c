/* How a source's text is taken apart; names and members' digests. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "tests/unit/image/source-fixture.h"
#include "tools/image/image-members.h"
#include "tools/image/image-name.h"
#include "tools/image/image-open.h"

static void expect_error(const char *text, int code, const char *words)
{
	ImageSource *source = NULL;
	Error error = { 0 };
	assert_int_equal(image_open_source(text, NULL, &source, &error), code);
	if (!strstr(error.message, words))
		fail_msg("\"%s\" does not say \"%s\"", error.message, words);
	assert_null(source);
}

/* Opens an archive of one image called x:1, and transfers it. */
static void expect_transfer(const char *text, const FakeImage *image, int code)
{
	_cleanup_(image_source_free_p) ImageSource *source = NULL;
	FakeSink sink;
	Error error = { 0 };
	assert_int_equal(image_open_source(text, NULL, &source, &error), 0);
	fake_sink_init(&sink);
	if (code == 0)
		fake_expect_image(source, &sink, image);
	else
		fake_expect_error(source, &sink, code, "");
}

static void test_paths_with_colons(void **state _unused_)
{
	FakeImage image;
	Buffer archive = { 0 };
	char text[256];
	fake_image_make(&image, 1, "a");
	fake_archive(&archive, &image, FAKE_OLD, "whisk/x:1");
	const char *directory = fake_directory_make();
	fake_file(directory, "plain.tar", archive.data, archive.size);
	fake_file(directory, "with:colon.tar", archive.data, archive.size);

	(void)snprintf(text, sizeof(text), "docker-archive:%s/plain.tar", directory);
	expect_transfer(text, &image, 0);
	(void)snprintf(text, sizeof(text), "docker-archive:%s/plain.tar:whisk/x:1", directory);
	expect_transfer(text, &image, 0);
	(void)snprintf(text, sizeof(text), "docker-archive:%s/plain.tar:whisk/x:2", directory);
	expect_transfer(text, &image, -ENOENT);
	(void)snprintf(text, sizeof(text), "docker-archive:%s/with:colon.tar", directory);
	expect_transfer(text, &image, 0);
	(void)snprintf(text, sizeof(text), "docker-archive:%s/with:colon.tar:whisk/x:1", directory);
	expect_transfer(text, &image, 0);

	(void)snprintf(text, sizeof(text), "docker-archive:%s/none.tar:whisk/x:1", directory);
	expect_error(text, -ENOENT, "/none.tar:");
	(void)snprintf(text, sizeof(text), "docker-archive:%s/plain.tar:", directory);
	expect_error(text, -EINVAL, "docker-archive:FILE[:REF]");
	fake_directory_remove(directory);
	buffer_done(&archive);
	fake_image_done(&image);
}

static void test_forms(void **state _unused_)
{
	expect_error("docker-archive:", -EINVAL, "docker-archive:FILE[:REF]");
	expect_error("oci:", -EINVAL, "oci:DIR[:REF]");
	expect_error("oci:/nonexistent:v1", -ENOENT, "/nonexistent:");
	expect_error("docker-daemon:", -EINVAL, "no name of an image");
	expect_error("./image.tar", -EINVAL, "docker-archive:FILE");
	expect_error("/image.tar", -EINVAL, "docker-archive:FILE");
	expect_error("docker://x", -EINVAL, "oci-archive:FILE");
	expect_error("oci-archive:", -EINVAL, "oci-archive:FILE[:REF]");
	expect_error("oci-archive:/nonexistent:v1", -ENOENT, "/nonexistent:");
	expect_error("a name", -EINVAL, "no name of an image");
	_cleanup_(image_source_free_p) ImageSource *source = NULL;
	Error error = { 0 };
	assert_int_equal(image_open_source("whisk/invoker:v2", NULL, &source, &error), 0);
}

static void expect_hint(const char *text, const char *words)
{
	Error error = { 0 };
	(void)error_set(&error, -ENOENT, "nothing");
	assert_int_equal(image_open_hint(text, -ENOENT, &error), -ENOENT);
	assert_string_equal(error.message, words);
}

static void test_hints(void **state _unused_)
{
	char cwd[4096];
	assert_non_null(getcwd(cwd, sizeof(cwd)));
	const char *directory = fake_directory_make();
	fake_file(directory, "image.tar", "x", 1);
	assert_int_equal(chdir(directory), 0);
	expect_hint("image.tar", "nothing; if the file image.tar is meant, write docker-archive:image.tar");
	expect_hint("other.tar", "nothing");
	expect_hint("docker-archive:image.tar", "nothing");
	expect_hint("docker-daemon:image.tar", "nothing");
	expect_hint("-", "nothing");
	assert_int_equal(chdir(cwd), 0);
	fake_directory_remove(directory);
}

static void test_names(void **state _unused_)
{
	assert_true(image_name_matches("x:1", "x:1"));
	assert_true(image_name_matches("x:latest", "x"));
	assert_true(image_name_matches("x", "x:latest"));
	assert_true(image_name_matches("docker.io/library/x:1", "x:1"));
	assert_true(image_name_matches("docker.io/a/x:1", "a/x:1"));
	assert_true(image_name_matches("x:1", "docker.io/library/x:1"));
	assert_false(image_name_matches("x:1", "x"));
	assert_false(image_name_matches("x:1", "x:12"));
	assert_false(image_name_matches("ax:1", "x:1"));
	assert_false(image_name_matches("quay.io/x:1", "x:1"));
}

static void test_member_digests(void **state _unused_)
{
	static const char hex[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
	static const char *const good[] = { "%s", "%s.json", "%s.tar", "blobs/sha256/%s", "sha256:%s", "a/b/%s.tar" };
	static const char *const bad[] = { "%s.txt", "x%s",       "%sx",    "%s/layer.tar",
					   "",       "layer.tar", "md5:%s", "%s.tar.gz" };
	char name[128];
	Digest digest, wanted;
	assert_int_equal(digest_from_hex(hex, &wanted), 0);
	for (size_t i = 0; i < ELEMENTS(good); i++) {
		const char *mark = strstr(good[i], "%s");
		(void)snprintf(name, sizeof(name), "%.*s%s%s", (int)(mark - good[i]), good[i], hex, mark + 2);
		assert_int_equal(image_member_digest(name, &digest), 0);
		assert_true(digest_equal(&digest, &wanted));
	}
	for (size_t i = 0; i < ELEMENTS(bad); i++) {
		const char *mark = strstr(bad[i], "%s");
		if (mark)
			(void)snprintf(name, sizeof(name), "%.*s%s%s", (int)(mark - bad[i]), bad[i], hex, mark + 2);
		else
			(void)snprintf(name, sizeof(name), "%s", bad[i]);
		assert_int_equal(image_member_digest(name, &digest), -EINVAL);
	}
}

static void add(ImageMembers *members, const char *name, char typeflag, const char *target)
{
	TarEntry entry = { .name = name, .name_size = strlen(name), .typeflag = typeflag, .target = target };
	ImageMember *member;
	assert_int_equal(image_members_add(members, &entry, &member, NULL), 0);
}

static void test_members(void **state _unused_)
{
	ImageMembers members = { 0 };
	ImageMember *member;
	add(&members, "./a/../b/./c.tar", '0', NULL);
	add(&members, "/x/y/link", '2', "../../../../b/c.tar");
	add(&members, "x/hard", '1', "x/y/link");
	assert_int_equal(image_members_find(&members, "b/c.tar", &member, NULL), 0);
	assert_string_equal(member->name, "b/c.tar");
	assert_int_equal(image_members_find(&members, "./x//hard", &member, NULL), 0);
	assert_string_equal(member->name, "b/c.tar");
	assert_int_equal(image_members_find(&members, "x", &member, NULL), -ENOENT);
	/* The last of a name is the one that counts. */
	add(&members, "x/hard", '0', NULL);
	assert_int_equal(image_members_find(&members, "x/hard", &member, NULL), 0);
	assert_string_equal(member->name, "x/hard");
	image_members_done(&members);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_paths_with_colons), cmocka_unit_test(test_forms),   cmocka_unit_test(test_names),
		cmocka_unit_test(test_member_digests),    cmocka_unit_test(test_members), cmocka_unit_test(test_hints),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
