#include "tests/unit/node/node-fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/fetch/blob-fixture.h"

#define POLLS 3000

static int open_named(void *arg, _unused_ const char *store, const char *reference, _unused_ CacheStore *cache,
		      FetchImage *ret_image, Error *error)
{
	NodeFixture *fixture = arg;
	Reference parsed;
	char name[600];
	if (fixture->fault < 0)
		return error_set(error, fixture->fault, "the store is away");
	assert_int_equal(reference_parse_local(reference, &parsed, NULL), 0);
	(void)snprintf(name, sizeof(name), "%s:%s", parsed.name, parsed.tag);
	FetchImage image = { .view_fd = -1 };
	assert_int_equal(digest_of(name, strlen(name), &image.chain_id), 0);
	image.manifest = image.config = image.chain_id;
	*ret_image = image;
	return 0;
}

int node_fixture_set_up(void **state)
{
	NodeFixture *fixture = calloc(1, sizeof(*fixture));
	assert_non_null(fixture);
	fixture->directory = scratch_make();
	(void)snprintf(fixture->runtime, sizeof(fixture->runtime), "%s/run", fixture->directory);
	(void)snprintf(fixture->state, sizeof(fixture->state), "%s/state", fixture->directory);
	(void)snprintf(fixture->cache, sizeof(fixture->cache), "%s/cache", fixture->directory);
	fake_keeper_reset();
	*state = fixture;
	return 0;
}

void node_fixture_start(NodeFixture *fixture)
{
	NodeOptions options = {
		.runtime = fixture->runtime,
		.state = fixture->state,
		.cache = fixture->cache,
		.version = "test",
		.start_keeper = true,
		.settings = { .deadline = 30000, .timeout = 30000 },
		.open_local = open_named,
		.arg = fixture,
		.ready_fd = -1,
	};
	int r = node_new(&options, &fixture->node, &fixture->error);
	if (r == 0)
		r = node_restore(fixture->node, &fixture->error);
	if (r < 0)
		fail_msg("%s", fixture->error.message);
	if (fixture->keeps)
		assert_int_equal(node_keeping_start(fixture->node), 0);
}

void node_fixture_stop(NodeFixture *fixture)
{
	fixture->node = node_free(fixture->node);
}

int node_fixture_tear_down(void **state)
{
	NodeFixture *fixture = *state;
	node_fixture_stop(fixture);
	fake_keeper_reset();
	scratch_remove(fixture->directory);
	free(fixture);
	return 0;
}

int node_fixture_attach(NodeFixture *fixture, const char *owner, const char *image)
{
	_cleanup_(control_request_done) ControlRequest request = { 0 };
	Error error = { 0 };
	json_t *answer = NULL;
	assert_int_equal(control_request_parse(json_pack("{s:s, s:s, s:s, s:s}", "call", "attach", "owner", owner,
							 "reference", image, "store", "/store"),
					       &request, NULL),
			 0);
	int r = node_attach(fixture->node, NULL, &request, &answer, &error);
	if (r < 0)
		return r;
	int slot = (int)json_integer_value(json_object_get(answer, "slot"));
	char path[256], hex[DIGEST_HEX_SIZE];
	Digest chain_id;
	assert_int_equal(digest_of(image, strlen(image), &chain_id), 0);
	(void)snprintf(path, sizeof(path), "%s/fs/%s/%s", fixture->runtime, slot % 2 ? "xattr" : "plain",
		       digest_hex(&chain_id, hex));
	assert_string_equal(json_string_value(json_object_get(answer, "path")), path);
	json_decref(answer);
	return slot;
}

int node_fixture_detach(NodeFixture *fixture, const char *owner)
{
	json_t *answer = NULL;
	int r = node_detach(fixture->node, owner, false, &answer, NULL);
	json_decref(answer);
	return r;
}

json_t *node_fixture_entry(NodeFixture *fixture, const char *owner)
{
	json_t *answer = NULL, *entry, *found = NULL;
	size_t at;
	assert_int_equal(node_list(fixture->node, NULL, &answer, NULL), 0);
	json_array_foreach(json_object_get(answer, "attached"), at,
			   entry) if (strcmp(json_string_value(json_object_get(entry, "owner")), owner) == 0) found =
		json_incref(entry);
	json_decref(answer);
	return found;
}

void node_fixture_await(NodeFixture *fixture, const char *owner, const char *wanted)
{
	for (int i = 0; i < POLLS; i++) {
		json_t *entry = node_fixture_entry(fixture, owner);
		const char *state = json_string_value(json_object_get(entry, "state"));
		bool good = state && strcmp(state, wanted) == 0;
		json_decref(entry);
		if (good)
			return;
		usleep(10000);
	}
	fail_msg("%s is not %s", owner, wanted);
}
