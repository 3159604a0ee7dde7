#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>

#include "cache-fixture.h"
#include "fs/base/fd.h"
#include "fs/cache/cache-evict.h"
#include "fs/cache/cache-pins.h"
#include "fs/format/format.h"
#include "fs/format/manifest.h"

#define LAYERS 3u

typedef struct PinFixture {
	char directory[PATH_MAX];
	CacheStore *store;
	ManifestLayer layers[LAYERS];
	Digest manifest;
} PinFixture;

/* A manifest of `count` layers in the cache. */
static void put_manifest(PinFixture *fixture)
{
	Manifest manifest = { .config_size = 10, .layer_count = LAYERS, .layers = fixture->layers };
	char *json;
	size_t size;
	for (uint32_t i = 0; i < LAYERS; i++) {
		ManifestLayer *layer = &fixture->layers[i];
		*layer = (ManifestLayer){
			.tar_size = 1024, .blob_size = 300 + FORMAT_FOOTER_SIZE, .index_offset = 100, .index_size = 200
		};
		memset(&layer->diff_id, 16 + (int)i, sizeof(layer->diff_id));
		memset(&layer->blob, 32 + (int)i, sizeof(layer->blob));
		memset(&layer->index, 48 + (int)i, sizeof(layer->index));
	}
	assert_int_equal(manifest_encode(&manifest, &json, &size), 0);
	assert_int_equal(digest_of(json, size, &fixture->manifest), 0);
	assert_int_equal(cache_store_put(fixture->store, CACHE_MANIFEST, &fixture->manifest, json, size, NULL), 0);
	free(json);
}

static int set_up(void **state)
{
	PinFixture *fixture = calloc(1, sizeof(*fixture));
	assert_non_null(fixture);
	fixture->store = cache_fixture_open(fixture->directory);
	put_manifest(fixture);
	*state = fixture;
	return 0;
}

static int tear_down(void **state)
{
	PinFixture *fixture = *state;
	cache_fixture_close(fixture->store, fixture->directory);
	free(fixture);
	return 0;
}

static void path_of(const PinFixture *fixture, const char *kind, char ret_path[static PATH_MAX])
{
	char hex[DIGEST_HEX_SIZE];
	int length = snprintf(ret_path, PATH_MAX, "%.3000s/%s/%s", fixture->directory, kind,
			      digest_hex(&fixture->manifest, hex));
	assert_in_range(length, 1, PATH_MAX - 1);
}

static void check_pin(const PinFixture *fixture, CachePin *pin, const char *reference)
{
	assert_memory_equal(&pin->manifest, &fixture->manifest, sizeof(Digest));
	assert_string_equal(pin->reference, reference);
	assert_int_equal(pin->keep.count, 2 * LAYERS);
	digest_list_sort(&pin->keep);
	for (size_t i = 0; i < LAYERS; i++) {
		assert_true(digest_list_has(&pin->keep, &fixture->layers[i].blob));
		assert_true(digest_list_has(&pin->keep, &fixture->layers[i].diff_id));
	}
}

static void test_pins_and_seals(void **state)
{
	PinFixture *fixture = *state;
	CachePin *pins;
	size_t count;
	assert_int_equal(cache_pins_list(fixture->store, &pins, &count, NULL), 0);
	assert_int_equal(count, 0);
	assert_null(cache_pins_free(pins, count));
	assert_false(cache_pin_has(fixture->store, CACHE_PIN, &fixture->manifest));

	assert_int_equal(cache_pin_add(fixture->store, CACHE_PIN, &fixture->manifest, "h/a:old", NULL), 0);
	assert_int_equal(cache_pin_add(fixture->store, CACHE_PIN, &fixture->manifest, "h/a\nblob x", NULL), 0);
	assert_true(cache_pin_has(fixture->store, CACHE_PIN, &fixture->manifest));
	assert_false(cache_pin_has(fixture->store, CACHE_SEAL, &fixture->manifest));
	assert_int_equal(cache_pin_add(fixture->store, CACHE_SEAL, &fixture->manifest, "h/a:new", NULL), 0);
	assert_int_equal(cache_pins_list(fixture->store, &pins, &count, NULL), 0);
	assert_int_equal(count, 2);
	check_pin(fixture, &pins[0], "h/a?blob x");
	check_pin(fixture, &pins[1], "h/a:new");
	assert_int_equal(pins[1].kind, CACHE_SEAL);
	assert_true(pins[1].time > 1700000000);
	assert_null(cache_pins_free(pins, count));

	Error error = { 0 };
	assert_int_equal(cache_pin_remove(fixture->store, CACHE_PIN, &fixture->manifest, NULL), 0);
	assert_int_equal(cache_pin_remove(fixture->store, CACHE_PIN, &fixture->manifest, &error), -ENOENT);
	assert_non_null(strstr(error.message, "is not pinned"));
	assert_true(cache_pin_has(fixture->store, CACHE_SEAL, &fixture->manifest));
}

static void test_needs_the_manifest(void **state)
{
	PinFixture *fixture = *state;
	Error error = { 0 };
	Digest other = { { 1 } };
	char path[PATH_MAX];
	assert_int_equal(cache_pin_add(fixture->store, CACHE_PIN, &other, "x", &error), -ENOENT);
	assert_non_null(strstr(error.message, "imgfs pull"));
	path_of(fixture, "manifests", path);
	assert_int_equal(fd_replace_file(AT_FDCWD, path, "{}", 2, 0600), 0);
	assert_int_equal(cache_pin_add(fixture->store, CACHE_PIN, &fixture->manifest, "x", &error), -ENOENT);
	assert_int_equal(cache_pin_remove(fixture->store, CACHE_PIN, &fixture->manifest, &error), -ENOENT);
}

/* A damaged pin protects what its manifest names; without that too, nobody may believe that nothing is protected. */
static void test_damaged_pins(void **state)
{
	static const char *const damaged[] = { "", "imgfs pin 1\nreference x\n", "imgfs pin 2\nreference x\nend\n",
					       "imgfs pin 1\nend\n", "imgfs pin 1\nreference x\nblob sha256:1\nend\n" };
	PinFixture *fixture = *state;
	char path[PATH_MAX];
	CachePin *pins;
	size_t count;
	Error error = { 0 };
	assert_int_equal(cache_pin_add(fixture->store, CACHE_PIN, &fixture->manifest, "x", NULL), 0);
	path_of(fixture, "pins", path);
	for (size_t i = 0; i < ELEMENTS(damaged); i++) {
		assert_int_equal(fd_replace_file(AT_FDCWD, path, damaged[i], strlen(damaged[i]), 0600), 0);
		assert_int_equal(cache_pins_list(fixture->store, &pins, &count, NULL), 0);
		assert_int_equal(count, 1);
		check_pin(fixture, &pins[0], "");
		assert_null(cache_pins_free(pins, count));
	}
	path_of(fixture, "manifests", path);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(cache_pins_list(fixture->store, &pins, &count, &error), -EBADMSG);
	assert_non_null(strstr(error.message, "/pins/"));
}

static void *pin_in_thread(void *arg)
{
	PinFixture *fixture = arg;
	assert_int_equal(cache_pin_add(fixture->store, CACHE_PIN, &fixture->manifest, "x", NULL), 0);
	return NULL;
}

/* What is pinned when the call returns is not taken by an eviction that began before. */
static void test_waits_for_an_eviction(void **state)
{
	PinFixture *fixture = *state;
	int lock, other;
	pthread_t thread;
	assert_int_equal(cache_evict_lock(fixture->store, false, &lock), 0);
	assert_int_equal(cache_evict_lock(fixture->store, false, &other), -EWOULDBLOCK);
	assert_int_equal(pthread_create(&thread, NULL, pin_in_thread, fixture), 0);
	(void)usleep(20000);
	assert_false(cache_pin_has(fixture->store, CACHE_PIN, &fixture->manifest));
	(void)close(lock);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_true(cache_pin_has(fixture->store, CACHE_PIN, &fixture->manifest));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_pins_and_seals, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_needs_the_manifest, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_damaged_pins, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_waits_for_an_eviction, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
