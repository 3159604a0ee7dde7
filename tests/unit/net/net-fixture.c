#include "tests/unit/net/net-fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <limits.h>

#include "fs/base/fd.h"

int net_fixture_start(void **state)
{
	NetFixture *fixture = calloc(1, sizeof(*fixture));
	assert_non_null(fixture);
	(void)snprintf(fixture->directory, sizeof(fixture->directory), "%.200s/imgfs-test-XXXXXX",
		       getenv("TMPDIR") ?: "/tmp");
	assert_non_null(mkdtemp(fixture->directory));
	fixture->content = malloc(FILE_SIZE);
	assert_non_null(fixture->content);
	for (uint32_t i = 0; i < FILE_SIZE; i++)
		fixture->content[i] = (uint8_t)(i * 2654435761u >> 24);
	char path[PATH_MAX];
	(void)snprintf(path, sizeof(path), "%s/file", fixture->directory);
	assert_int_equal(fd_replace_file(AT_FDCWD, path, fixture->content, FILE_SIZE, 0600), 0);
	assert_int_equal(fake_server_new(fixture->directory, &fixture->server), 0);
	(void)snprintf(fixture->url, sizeof(fixture->url), "http://%s/file", fake_server_host(fixture->server));
	*state = fixture;
	return 0;
}

int net_fixture_stop(void **state)
{
	NetFixture *fixture = *state;
	char path[PATH_MAX];
	(void)snprintf(path, sizeof(path), "%s/file", fixture->directory);
	assert_null(fake_server_free(fixture->server));
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rmdir(fixture->directory), 0);
	free(fixture->content);
	free(fixture);
	return 0;
}
