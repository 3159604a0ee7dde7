/* The exact blobs of small tars (tests/golden), and that lz4 gives the tars back. */
#include <fcntl.h>
#include <lz4.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <zstd.h>

#include <cmocka.h>

#include "fs/base/fd.h"
#include "fs/format/frame.h"
#include "tests/unit/export/layer-fixture.h"

static const char *golden; /* the directory */

static void read_tar(const char *name, Buffer *ret_tar)
{
	char path[4096];
	char *data;
	size_t size;
	(void)snprintf(path, sizeof(path), "%s/%s", golden, name);
	assert_int_equal(fd_read_file(AT_FDCWD, path, SIZE_MAX / 2, &data, &size), 0);
	*ret_tar = (Buffer){ .data = (uint8_t *)data, .size = size, .capacity = size + 1 };
}

static int parse_level(const char *text)
{
	if (strcmp(text, "adaptive") == 0)
		return FRAME_ADAPTIVE;
	if (strcmp(text, "fast") == 0)
		return FRAME_FAST;
	assert_memory_equal(text, "hc", 2);
	return atoi(text + 2);
}

/* Makes the blob of one line of blobs.txt; is it the one that stands there? */
static bool check_line(const char *name, const char *level, const char *expected)
{
	Buffer tar;
	Layer layer;
	char found[DIGEST_HEX_SIZE];
	LayerOptions options = { .level = parse_level(level), .jobs = 2 };
	read_tar(name, &tar);
	layer_open_tar(&tar, &options, &layer);
	digest_hex(&layer.result.layer.blob, found);
	bool same = strcmp(found, expected) == 0;
	if (!same)
		print_error("%s %s %s, found %s\n", name, level, expected, found);
	layer_done(&layer);
	buffer_done(&tar);
	return same;
}

/* One word after another of the file, blank lines and comments left out. */
static void test_blobs(void **state _unused_)
{
	char path[4096], line[512], name[64], level[32], digest[128];
	unsigned checked = 0, failed = 0;
	bool compared = true;
	(void)snprintf(path, sizeof(path), "%s/blobs.txt", golden);
	_cleanup_fclose_ FILE *file = fopen(path, "re");
	assert_non_null(file);
	while (fgets(line, sizeof(line), file)) {
		if (line[0] == '#' || sscanf(line, "%63s %31s %127s", name, level, digest) < 2)
			continue;
		if (strcmp(name, "lz4") == 0)
			compared = compared && strcmp(level, LZ4_versionString()) == 0;
		else if (strcmp(name, "zstd") == 0)
			compared = compared && strcmp(level, ZSTD_versionString()) == 0;
		else if (compared)
			failed += !check_line(name, level, digest), checked++;
	}
	if (!compared) {
		print_message("the vectors are of other versions than lz4 %s and zstd %s\n", LZ4_versionString(),
			      ZSTD_versionString());
		skip();
	}
	assert_int_equal(checked, 9);
	assert_int_equal(failed, 0);
}

static void expect_output(const char *command, const Buffer *expected)
{
	FILE *pipe = popen(command, "re");
	assert_non_null(pipe);
	_cleanup_free_ uint8_t *found = malloc(expected->size + 1);
	assert_non_null(found);
	size_t size = fread(found, 1, expected->size + 1, pipe);
	assert_int_equal(pclose(pipe), 0);
	assert_int_equal(size, expected->size);
	assert_memory_equal(found, expected->data, size);
}

static void test_lz4(void **state _unused_)
{
	static const char *const names[] = { "empty.tar", "types.tar", "chunks.tar" };
	if (system("command -v lz4 >/dev/null 2>&1") != 0) {
		print_message("lz4 is not installed\n");
		skip();
	}
	for (size_t i = 0; i < ELEMENTS(names); i++) {
		Buffer tar;
		Layer layer;
		char path[] = "/tmp/imgfs-golden-XXXXXX", command[128];
		LayerOptions options = { .level = FRAME_ADAPTIVE, .jobs = 2 };
		read_tar(names[i], &tar);
		layer_open_tar(&tar, &options, &layer);
		_cleanup_close_ int fd = mkstemp(path);
		assert_true(fd >= 0);
		assert_int_equal(fd_write_all(fd, layer.blob.data, layer.blob.size), 0);
		(void)snprintf(command, sizeof(command), "lz4 -dc <%s", path);
		expect_output(command, &tar);
		assert_int_equal(unlink(path), 0);
		layer_done(&layer);
		buffer_done(&tar);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_blobs),
		cmocka_unit_test(test_lz4),
	};
	if (argc != 2) {
		fprintf(stderr, "usage: %s tests/golden\n", argv[0]);
		return 2;
	}
	golden = argv[1];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
