/* ACLs as text to the value of the xattr; expected values are what Linux 6.1 showed for setfacl's. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/export/tar-builder.h"
#include "tools/export/tar-acl.h"
#include "tools/export/tar-reader.h"

#define NONE "ffffffff"
#define FILE_HEX   \
	"02000000" \
	"01000600" NONE "02000600e803000004000400" NONE "08000400d007000010000600" NONE "20000400" NONE

static const char *hex(const Buffer *value)
{
	static char text[1024];
	text[0] = '\0';
	for (size_t i = 0; i < value->size; i++)
		(void)snprintf(text + 2 * i, sizeof(text) - 2 * i, "%02x", value->data[i]);
	return text;
}

static const struct {
	const char *text;
	const char *value; /* in hex */
	uint32_t mode;     /* after 07700 */
} access_lists[] = {
	/* as GNU tar writes them, and libarchive, and in another order with blanks and comments */
	{ "user::rw-\nuser:1000:rw-\ngroup::r--\ngroup:2000:r--\nmask::rw-\nother::r--\n", FILE_HEX, 07664 },
	{ "user::rw-,group::r--,other::r--,user:cloudsdk:rw-:1000,group:2000:r--,mask::rw-", FILE_HEX, 07664 },
	{ " g:2000:r ,o:r--,m:rw,u:1000:rw-\t#effective:r--\nu::rw,\n\n,g::r", FILE_HEX, 07664 },
	{ "user::rwx,group::r-x,other::---", "", 07750 },
	{ "user::rwx,user:root:r--,group::---,mask::r--,other::--x",
	  "02000000"
	  "01000700" NONE "0200040000000000"
	  "04000000" NONE "10000400" NONE "20000100" NONE,
	  07741 },
	/* whoever that is */
	{ "user::rwx,user:lisa:r--,group::---,mask::r--,other::--x", "", 07700 },
	{ "", "", 07700 },
	{ "\n,", "", 07700 },
};

static void test_access(void **state _unused_)
{
	for (size_t i = 0; i < ELEMENTS(access_lists); i++) {
		Buffer value = { 0 };
		uint32_t mode = 07700;
		const char *text = access_lists[i].text;
		assert_int_equal(tar_acl_encode(text, strlen(text), &mode, &value, NULL), 0);
		assert_string_equal(hex(&value), access_lists[i].value);
		assert_int_equal(mode, access_lists[i].mode);
		buffer_done(&value);
	}
}

static void test_default(void **state _unused_)
{
	const char text[] = "user::rwx,group::r-x,other::---";
	Buffer value = { 0 };
	assert_int_equal(tar_acl_encode(text, strlen(text), NULL, &value, NULL), 0);
	assert_string_equal(hex(&value), "0200000001000700" NONE "04000500" NONE "20000000" NONE);
	buffer_done(&value);
}

static void test_malformed(void **state _unused_)
{
	static const char *const bad[] = {
		"user",
		"user:",
		"user::",
		"user::rwxr",
		"user::rq",
		"user:rwx,group::r,other::r",
		"useless::rwx",
		"mask:1:rwx",
		"other:1:rwx",
		"user:1:r:2:3",
		"user::r:2",
		"user:x:r:y",
		"user:x:r:4294967295",
		"user:4294967295:r:",
		"user::rwx,group::r-x",
		"group::r-x,other::---",
		"user::r,user::r,group::r,other::r",
		"user::r,user:1:r,user:1:w,group::r,other::r,mask::r",
		"user::r,user:1:r,group::r,other::r",
	};
	for (size_t i = 0; i < ELEMENTS(bad); i++) {
		Buffer value = { 0 };
		Error error = { 0 };
		uint32_t mode = 0;
		if (tar_acl_encode(bad[i], strlen(bad[i]), &mode, &value, &error) != -EBADMSG ||
		    !strstr(error.message, "access control list"))
			fail_msg("%s: %s", bad[i], error.message);
		assert_int_equal(value.size, 0);
		buffer_done(&value);
	}
}

static void test_too_many(void **state _unused_)
{
	Buffer text = { 0 }, value = { 0 };
	Error error = { 0 };
	uint32_t mode = 0;
	char entry[32];
	for (unsigned i = 0; i < 8192; i++) {
		int length = snprintf(entry, sizeof(entry), "u:%u:r,", i);
		assert_int_equal(buffer_append(&text, entry, (size_t)length), 0);
	}
	assert_int_equal(tar_acl_encode((const char *)text.data, text.size, &mode, &value, &error), -EOPNOTSUPP);
	assert_non_null(strstr(error.message, "8191 entries"));
	buffer_done(&text);
	buffer_done(&value);
}

/* The one entry of a tar. */
static const TarEntry *read_entry(TarReader *reader, const Buffer *tar)
{
	TarPiece piece = TAR_OTHER;
	for (size_t at = 0, consumed = 0; piece != TAR_ENTRY; at += consumed) {
		assert_true(at < tar->size);
		assert_int_equal(tar_reader_feed(reader, tar->data + at, tar->size - at, &consumed, &piece, NULL), 0);
	}
	return tar_reader_entry(reader);
}

/* Both lists at an entry of this type; `xattr` is there as such, or NULL. */
static void expect_xattrs(char typeflag, const char *xattr, size_t count, const char *first_value)
{
	_cleanup_(tar_reader_free_p) TarReader *reader = NULL;
	Buffer tar = { 0 }, records = { 0 };
	const char text[] = "user::rwx,user:7:r,group::r,mask::rwx,other::r";
	tar_record(&records, "SCHILY.acl.access", text, strlen(text));
	tar_record(&records, "SCHILY.acl.default", text, strlen(text));
	if (xattr)
		tar_record(&records, xattr, "exact", 5);
	tar_extension(&tar, 'x', records.data, records.size);
	tar_text(tar_header(&tar, "name", typeflag, 0), 157, "target");
	tar_end(&tar);
	assert_int_equal(tar_reader_new(&reader), 0);
	const TarEntry *entry = read_entry(reader, &tar);
	assert_int_equal(entry->xattr_count, count);
	if (count > 0)
		assert_int_equal(entry->xattrs[0].value.size, strlen(first_value));
	assert_int_equal(entry->mode, count > 0 && !xattr ? 0774 : 0644);
	buffer_done(&tar);
	buffer_done(&records);
}

static void test_where_it_applies(void **state _unused_)
{
	static const char value[] = "the value of five entries has 44 bytes, this.";
	char of_five[45];
	memcpy(of_five, value, 44);
	of_five[44] = '\0';
	expect_xattrs('0', NULL, 1, of_five);
	expect_xattrs('5', NULL, 2, of_five);
	expect_xattrs('6', NULL, 1, of_five);
	expect_xattrs('2', NULL, 0, "");
	expect_xattrs('0', "SCHILY.xattr.system.posix_acl_access", 1, "exact");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_access),           cmocka_unit_test(test_default),
		cmocka_unit_test(test_malformed),        cmocka_unit_test(test_too_many),
		cmocka_unit_test(test_where_it_applies),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
