/* From a reference to open files: what is asked of the registry, what is kept, what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/base/fd.h"
#include "fs/cache/cache-pins.h"
#include "fs/cache/cache-present.h"
#include "fs/cache/cache-seal.h"
#include "fs/fetch/fetch-image.h"
#include "fs/fetch/fetch-pull.h"
#include "fs/fetch/fetch-seal.h"
#include "fs/format/profile.h"
#include "fs/view/view.h"
#include "tests/fake/fake-server.h"
#include "tests/unit/fetch/blob-fixture.h"

#define LAYERS 3

typedef struct ImageFixture {
	BlobFixture layers[LAYERS];
	char *registry, *cache_path;
	FakeServer *server;
	CacheStore *cache;
	Reference reference;
	Digest manifest;
	FetchRemote remote;
	Error error;
} ImageFixture;

static int set_up(void **state)
{
	ImageFixture *fixture = calloc(1, sizeof(*fixture));
	assert_non_null(fixture);
	fixture->registry = scratch_make();
	fixture->cache_path = scratch_make();
	for (uint32_t i = 0; i < LAYERS; i++) {
		blob_fixture_make(&fixture->layers[i], i + 1, 5000, i + 1);
		blob_fixture_publish(&fixture->layers[i], fixture->registry);
	}
	blob_fixture_publish_image(fixture->layers, LAYERS, fixture->registry, "v1", &fixture->manifest);
	assert_int_equal(fake_server_new(fixture->registry, &fixture->server), 0);
	assert_int_equal(cache_store_open(fixture->cache_path, true, &fixture->cache, NULL), 0);
	char text[256];
	(void)snprintf(text, sizeof(text), "%s/app:v1", fake_server_host(fixture->server));
	assert_int_equal(reference_parse_remote(text, &fixture->reference, NULL), 0);
	fixture->remote = (FetchRemote){
		.reference = &fixture->reference,
		.timeout = 10000,
		.cache = fixture->cache,
	};
	*state = fixture;
	return 0;
}

static int tear_down(void **state)
{
	ImageFixture *fixture = *state;
	assert_null(fake_server_free(fixture->server));
	assert_null(cache_store_free(fixture->cache));
	for (size_t i = 0; i < LAYERS; i++)
		blob_fixture_done(&fixture->layers[i]);
	scratch_remove(fixture->registry);
	scratch_remove(fixture->cache_path);
	free(fixture);
	return 0;
}

static FakeCounts counts_of(ImageFixture *fixture)
{
	FakeCounts counts;
	fake_server_counts(fixture->server, &counts);
	return counts;
}

static int64_t size_of(int fd)
{
	struct stat status;
	assert_int_equal(fstat(fd, &status), 0);
	return status.st_size;
}

/* The view must hold the file of every layer. */
static void check_view(const FetchImage *image)
{
	FdMap map;
	Image view;
	Tree tree;
	TreeInode root;
	TreeDirent entry;
	assert_int_equal(fd_map(image->view_fd, &map), 0);
	assert_int_equal(image_open(map.data, map.size, &view, NULL), 0);
	assert_int_equal(view.header.kind, FORMAT_KIND_VIEW);
	assert_memory_equal(&view.header.id, &image->chain_id, sizeof(Digest));
	assert_int_equal(tree_open(&view, &tree, NULL), 0);
	tree_inode(&tree, 0, &root);
	for (unsigned i = 0; i < LAYERS; i++) {
		char name[16];
		(void)snprintf(name, sizeof(name), "file-%u", i + 1);
		assert_int_equal(tree_lookup(&tree, &root, name, strlen(name), &entry), 0);
	}
	fd_unmap(&map);
}

static void check_image(ImageFixture *fixture, const FetchImage *image, bool local)
{
	assert_memory_equal(&image->manifest, &fixture->manifest, sizeof(Digest));
	assert_int_equal(image->layer_count, LAYERS);
	assert_int_equal(image->image_size, (1 + 2 + 3) * 5000);
	for (size_t i = 0; i < LAYERS; i++) {
		const FetchLayerFiles *files = &image->layers[i];
		const BlobFixture *layer = &fixture->layers[i];
		assert_int_equal(size_of(files->index_fd), layer->index_size);
		assert_int_equal(fcntl(files->index_fd, F_GETFL) & O_ACCMODE, O_RDONLY);
		assert_int_equal(size_of(files->data_fd), layer->blob_size);
		if (local) {
			assert_int_equal(files->present_fd, -1);
			assert_null(files->url);
			continue;
		}
		char url[256], text[DIGEST_TEXT_SIZE];
		(void)snprintf(url, sizeof(url), "http://%s/v2/app/blobs/%s", fake_server_host(fixture->server),
			       digest_text(&layer->layer.blob, text));
		assert_string_equal(files->url, url);
		assert_true(size_of(files->present_fd) > 0);
	}
	check_view(image);
}

static void get(ImageFixture *fixture, bool stale)
{
	FetchImage image;
	int r = fetch_image_remote(&fixture->remote, &image, &fixture->error);
	if (r < 0)
		print_error("%s\n", fixture->error.message);
	assert_int_equal(r, 0);
	assert_int_equal(image.stale, stale);
	check_image(fixture, &image, false);
	fetch_image_done(&image);
}

static void refuse(ImageFixture *fixture, int code, const char *word)
{
	FetchImage image;
	assert_int_equal(fetch_image_remote(&fixture->remote, &image, &fixture->error), code);
	if (!strstr(fixture->error.message, word))
		print_error("%s\n", fixture->error.message);
	assert_non_null(strstr(fixture->error.message, word));
}

static void test_done_on_nothing(void **state _unused_)
{
	FetchImage image = { 0 };
	fetch_image_done(&image);
	fetch_image_done(&image);
	assert_true(fcntl(0, F_GETFD) >= 0); /* descriptor 0 is not taken for one of the image's */
}

static void test_first_time(void **state)
{
	ImageFixture *fixture = *state;
	get(fixture, false);
	FakeCounts counts = counts_of(fixture);
	assert_int_equal(counts.requests, 1 + LAYERS + 2); /* the last ones for start-up profile and config */
	assert_int_equal(counts.heads, 0);
	assert_false(counts.accept_encoding);
}

static void test_second_time_transfers_nothing(void **state)
{
	ImageFixture *fixture = *state;
	get(fixture, false);
	FakeCounts before = counts_of(fixture);
	get(fixture, false);
	FakeCounts after = counts_of(fixture);
	assert_int_equal(after.requests - before.requests, 1);
	assert_int_equal(after.heads, 1);
	assert_int_equal(after.bytes, before.bytes);
}

/* What the source has as the profile of an image; returns whether a mount of it then has one. */
static bool gives_profile(ImageFixture *fixture, const void *data, size_t size)
{
	char path[PATH_MAX], text[DIGEST_TEXT_SIZE];
	FetchImage image;
	(void)snprintf(path, sizeof(path), "%s/imgfs/profiles", fixture->registry);
	assert_int_equal(fd_make_directories(AT_FDCWD, path, 0755), 0);
	(void)snprintf(path, sizeof(path), "%s/imgfs/profiles/%s", fixture->registry,
		       digest_text(&fixture->manifest, text));
	assert_int_equal(fd_replace_file(AT_FDCWD, path, data, size, 0644), 0);
	/* It is asked for with indexes that are not here. */
	(void)snprintf(path, sizeof(path), "%s/indexes/%s", fixture->cache_path,
		       digest_hex(&fixture->layers[0].layer.index, text));
	(void)unlink(path);
	assert_int_equal(fetch_image_remote(&fixture->remote, &image, NULL), 0);
	bool has = image.profile_fd >= 0;
	fetch_image_done(&image);
	return has;
}

static void test_profile(void **state)
{
	ImageFixture *fixture = *state;
	Profile profile = { .manifest = fixture->manifest };
	_cleanup_free_ uint8_t *data = NULL, *foreign = NULL;
	size_t size, foreign_size;
	assert_int_equal(profile_add(&profile, 0, 0, 1), 0);
	assert_int_equal(profile_encode(&profile, &data, &size), 0);
	profile.manifest.bytes[0] ^= 1;
	assert_int_equal(profile_encode(&profile, &foreign, &foreign_size), 0);
	assert_false(gives_profile(fixture, "nonsense", 8));
	assert_false(gives_profile(fixture, foreign, foreign_size));
	assert_false(gives_profile(fixture, data, size - 1));
	assert_true(gives_profile(fixture, data, size));
	profile_done(&profile);
	/* From now on it is here. */
	fake_server_kill(fixture->server);
	FetchImage image;
	assert_int_equal(fetch_image_remote(&fixture->remote, &image, NULL), 0);
	assert_true(image.profile_fd >= 0);
	fetch_image_done(&image);
}

static void test_registry_without_digests(void **state)
{
	ImageFixture *fixture = *state;
	fake_server_fault(fixture->server, FAKE_NO_DIGEST, 0);
	get(fixture, false);
	get(fixture, false);
}

static void test_tag_moves(void **state)
{
	ImageFixture *fixture = *state;
	get(fixture, false);
	Digest first = fixture->manifest, second;
	blob_fixture_publish_image(fixture->layers, LAYERS - 1, fixture->registry, "v1", &second);
	FetchImage image;
	assert_int_equal(fetch_image_remote(&fixture->remote, &image, NULL), 0);
	assert_memory_equal(&image.manifest, &second, sizeof(Digest));
	assert_int_equal(image.layer_count, LAYERS - 1);
	fetch_image_done(&image);
	/* And back to one that is in the cache. */
	blob_fixture_publish_image(fixture->layers, LAYERS, fixture->registry, "v1", &first);
	uint64_t bytes = counts_of(fixture).bytes;
	get(fixture, false);
	assert_int_equal(counts_of(fixture).bytes, bytes);
	/* The last meaning is the one that is remembered. */
	fake_server_kill(fixture->server);
	get(fixture, true);
}

static void test_by_digest_needs_no_registry(void **state)
{
	ImageFixture *fixture = *state;
	fixture->reference.has_digest = true;
	fixture->reference.digest = fixture->manifest;
	get(fixture, false);
	fake_server_kill(fixture->server);
	get(fixture, false);
}

static void test_registry_is_gone(void **state)
{
	ImageFixture *fixture = *state;
	get(fixture, false);
	fake_server_kill(fixture->server);
	get(fixture, true);
	fixture->reference.tag[1] = '9';
	refuse(fixture, -EHOSTUNREACH, "has not seen the tag before");
}

/* A mirror that has an older image by the tag than this node has seen. */
static void test_stale_mirror(void **state)
{
	ImageFixture *fixture = *state;
	Digest old, seen;
	char *registry = scratch_make();
	FakeServer *mirror;
	for (uint32_t i = 0; i < LAYERS; i++)
		blob_fixture_publish(&fixture->layers[i], registry);
	blob_fixture_publish_image(fixture->layers, LAYERS - 1, registry, "v1", &old);
	assert_int_equal(fake_server_new(registry, &mirror), 0);
	char host[64], address[64];
	(void)snprintf(host, sizeof(host), "%s", fake_server_host(fixture->server));
	(void)snprintf(address, sizeof(address), "%s", fake_server_host(mirror));
	NetHost section = { .name = host, .mirrors = { address }, .mirror_count = 1 };
	NetHosts hosts = { .hosts = &section, .host_count = 1 };
	fixture->remote.hosts = &hosts;
	get(fixture, false);
	fake_server_kill(fixture->server);

	/* Nor is it asked, which would be a wait if it is dead. */
	FakeCounts before, after;
	fake_server_counts(mirror, &before);
	get(fixture, true);
	fake_server_counts(mirror, &after);
	assert_int_equal(after.requests, before.requests);
	assert_int_equal(cache_store_tag_get(fixture->cache, &fixture->reference, &seen), 0);
	assert_true(digest_equal(&seen, &fixture->manifest));

	/* Without the manifest it is asked for that one, and for what the tag means not even then. */
	char path[PATH_MAX], hex[DIGEST_HEX_SIZE];
	(void)snprintf(path, sizeof(path), "%s/manifests/%s", fixture->cache_path, digest_hex(&seen, hex));
	assert_int_equal(unlink(path), 0);
	refuse(fixture, -EHOSTUNREACH, "is not here any more");

	/* A node that has never seen the tag believes it. */
	(void)snprintf(path, sizeof(path), "%s/tags/%s/app/_tags/v1", fixture->cache_path, host);
	assert_int_equal(unlink(path), 0);
	FetchImage image;
	assert_int_equal(fetch_image_remote(&fixture->remote, &image, &fixture->error), 0);
	assert_true(image.stale && digest_equal(&image.manifest, &old));
	fetch_image_done(&image);

	/* What it said is no more than that: when it says something else, that counts. Without it, it is all there is. */
	assert_true(cache_store_tag_is_hearsay(fixture->cache, &fixture->reference));
	blob_fixture_publish_image(fixture->layers, LAYERS, registry, "v1", &seen);
	get(fixture, true);
	fake_server_kill(mirror);
	get(fixture, true);
	assert_int_equal(fake_server_revive(mirror), 0);
	blob_fixture_publish_image(fixture->layers, LAYERS - 1, registry, "v1", &old);

	/* Once the host has said it, also if it says the same, the mirror is not asked any more. */
	assert_int_equal(fake_server_revive(fixture->server), 0);
	get(fixture, false);
	assert_false(cache_store_tag_is_hearsay(fixture->cache, &fixture->reference));
	fake_server_kill(fixture->server);
	get(fixture, true);
	assert_null(fake_server_free(mirror));
	scratch_remove(registry);
}

static void test_registry_fails_or_stalls(void **state)
{
	ImageFixture *fixture = *state;
	get(fixture, false);
	fixture->remote.timeout = 200;
	fake_server_fault(fixture->server, FAKE_STALL_REQUEST, 0);
	get(fixture, true);
	fake_server_fault(fixture->server, FAKE_ERROR, 0);
	get(fixture, true);
}

/* Not there is an answer: the old meaning must not be used. */
static void test_tag_is_gone(void **state)
{
	ImageFixture *fixture = *state;
	get(fixture, false);
	fake_server_fault(fixture->server, FAKE_NOT_FOUND, 0);
	refuse(fixture, -ENOENT, "does not have it");
	fake_server_fault(fixture->server, FAKE_DENIED, 0);
	refuse(fixture, -EACCES, "does not allow it");
}

static void test_wrong_manifest(void **state)
{
	ImageFixture *fixture = *state;
	fake_server_fault(fixture->server, FAKE_WRONG_DIGEST, 0);
	refuse(fixture, -EBADMSG, "has digest");
	fake_server_fault(fixture->server, FAKE_CORRUPT, 1);
	refuse(fixture, -EBADMSG, "has digest");
	fixture->reference.has_digest = true;
	memset(&fixture->reference.digest, 1, sizeof(Digest));
	fake_server_fault(fixture->server, FAKE_NONE, 0);
	refuse(fixture, -ENOENT, "does not have it");
}

static void test_corrupt_index_is_refused(void **state)
{
	ImageFixture *fixture = *state;
	fixture->reference.has_digest = true;
	fixture->reference.digest = fixture->manifest;
	/* The manifest comes well, all after it corrupt. */
	FetchImage image;
	assert_int_equal(fetch_image_remote(&fixture->remote, &image, NULL), 0);
	fetch_image_done(&image);
	char path[PATH_MAX], hex[DIGEST_HEX_SIZE];
	(void)snprintf(path, sizeof(path), "%s/indexes/%s", fixture->cache_path,
		       digest_hex(&fixture->layers[1].layer.index, hex));
	assert_int_equal(unlink(path), 0);
	fake_server_fault(fixture->server, FAKE_CORRUPT, 0);
	refuse(fixture, -EBADMSG, "corrupt");
	fake_server_fault(fixture->server, FAKE_WHOLE, 0);
	refuse(fixture, -EPROTO, "ignores ranges");
	fake_server_fault(fixture->server, FAKE_TRUNCATE, 0);
	refuse(fixture, -ECONNRESET, "index");
	fake_server_fault(fixture->server, FAKE_NONE, 0);
	get(fixture, false);
}

/* An index that is right by its digest but belongs to something else. */
static void test_index_of_another_layer(void **state)
{
	ImageFixture *fixture = *state;
	fixture->layers[0].layer.diff_id.bytes[0] ^= 1;
	blob_fixture_publish_image(fixture->layers, LAYERS, fixture->registry, "v1", &fixture->manifest);
	refuse(fixture, -EBADMSG, "another layer");
	fixture->layers[0].layer.diff_id.bytes[0] ^= 1;
	fixture->layers[2].layer.tar_size++;
	blob_fixture_publish_image(fixture->layers, LAYERS, fixture->registry, "v1", &fixture->manifest);
	refuse(fixture, -EBADMSG, "length of the layer");
}

static void damage(const char *directory, const char *room, const Digest *digest, off_t at)
{
	char path[PATH_MAX], hex[DIGEST_HEX_SIZE];
	(void)snprintf(path, sizeof(path), "%s/%s/%s", directory, room, digest_hex(digest, hex));
	int fd = open(path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	if (at < 0) {
		assert_int_equal(ftruncate(fd, size_of(fd) + at), 0);
	} else {
		uint8_t byte;
		assert_int_equal(pread(fd, &byte, 1, at), 1);
		byte ^= 4;
		assert_int_equal(pwrite(fd, &byte, 1, at), 1);
	}
	(void)close(fd);
}

/* Whatever rots in the cache is made again. */
static void test_rotten_cache(void **state)
{
	ImageFixture *fixture = *state;
	FetchImage image;
	assert_int_equal(fetch_image_remote(&fixture->remote, &image, NULL), 0);
	Digest chain = image.chain_id;
	fetch_image_done(&image);
	static const off_t places[] = { 0, 50, 200, -1, -100 };
	for (size_t i = 0; i < ELEMENTS(places); i++) {
		damage(fixture->cache_path, "indexes", &fixture->layers[i % LAYERS].layer.index, places[i]);
		damage(fixture->cache_path, "views", &chain, places[i]);
		damage(fixture->cache_path, "manifests", &fixture->manifest, places[i]);
		get(fixture, false);
	}
	/* Empty files, as a power cut may leave them. */
	damage(fixture->cache_path, "indexes", &fixture->layers[0].layer.index, -(off_t)fixture->layers[0].index_size);
	get(fixture, false);
}

static void test_bad_manifest(void **state)
{
	ImageFixture *fixture = *state;
	char path[PATH_MAX];
	(void)snprintf(path, sizeof(path), "%s/v2/app/manifests/v1", fixture->registry);
	assert_int_equal(fd_replace_file(AT_FDCWD, path, "{}", 2, 0600), 0);
	refuse(fixture, -EBADMSG, "manifest");
	assert_int_equal(fd_replace_file(AT_FDCWD, path, "", 0, 0600), 0);
	refuse(fixture, -EBADMSG, "empty");
	_cleanup_free_ char *big = malloc(MANIFEST_SIZE_MAX + 1);
	assert_non_null(big);
	memset(big, ' ', MANIFEST_SIZE_MAX + 1);
	assert_int_equal(fd_replace_file(AT_FDCWD, path, big, MANIFEST_SIZE_MAX + 1, 0600), 0);
	refuse(fixture, -EFBIG, "longer than");
}

static int open_blob(void *arg, const Digest *blob)
{
	ImageFixture *fixture = arg;
	char path[PATH_MAX], text[DIGEST_TEXT_SIZE];
	(void)snprintf(path, sizeof(path), "%s/v2/app/blobs/%s", fixture->registry, digest_text(blob, text));
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static void test_local(void **state)
{
	ImageFixture *fixture = *state;
	char path[PATH_MAX];
	_cleanup_free_ char *json = NULL;
	size_t size;
	(void)snprintf(path, sizeof(path), "%s/v2/app/manifests/v1", fixture->registry);
	assert_int_equal(fd_read_file(AT_FDCWD, path, 100000, &json, &size), 0);
	FetchImage image;
	for (int i = 0; i < 2; i++) {
		assert_int_equal(fetch_image_local(json, size, open_blob, fixture, fixture->cache, &image, NULL), 0);
		check_image(fixture, &image, true);
		fetch_image_done(&image);
	}
	assert_int_equal(counts_of(fixture).requests, 0);

	char text[DIGEST_TEXT_SIZE];
	(void)snprintf(path, sizeof(path), "%s/v2/app/blobs/%s", fixture->registry,
		       digest_text(&fixture->layers[1].layer.blob, text));
	assert_int_equal(truncate(path, 100), 0);
	damage(fixture->cache_path, "indexes", &fixture->layers[1].layer.index, 0);
	assert_int_equal(fetch_image_local(json, size, open_blob, fixture, fixture->cache, &image, &fixture->error),
			 -EBADMSG);
	assert_non_null(strstr(fixture->error.message, "truncated"));
	assert_int_equal(unlink(path), 0);
	assert_int_equal(fetch_image_local(json, size, open_blob, fixture, fixture->cache, &image, &fixture->error),
			 -ENOENT);
	assert_non_null(strstr(fixture->error.message, "export the image again"));
}

/* A snapshot is a prefix of an image's layers: a chain like any other, without a manifest. */
static void test_layers(void **state)
{
	ImageFixture *fixture = *state;
	for (size_t count = 1; count <= LAYERS; count++) {
		ManifestLayer layers[LAYERS];
		Digest diff_ids[LAYERS], chain_id, none = { 0 };
		for (size_t i = 0; i < count; i++) {
			layers[i] = fixture->layers[i].layer;
			layers[i].tar_size = i % 2 ? layers[i].tar_size : 0;
			diff_ids[i] = layers[i].diff_id;
		}
		FetchImage image;
		assert_int_equal(view_chain_id(diff_ids, count, &chain_id), 0);
		assert_int_equal(fetch_image_layers(&fixture->remote, layers, count, &image, NULL), 0);
		assert_memory_equal(&image.chain_id, &chain_id, sizeof(Digest));
		assert_memory_equal(&image.manifest, &none, sizeof(Digest));
		assert_int_equal(image.layer_count, count);
		assert_int_equal(image.image_size, 5000 * count * (count + 1) / 2);
		assert_int_equal(image.layers[0].layer.tar_size, 5000);
		assert_non_null(strstr(image.layers[count - 1].url, "/v2/app/blobs/sha256:"));
		fetch_image_done(&image);
	}
	assert_int_equal(counts_of(fixture).requests, LAYERS); /* an index each, once */

	ManifestLayer wrong = fixture->layers[0].layer;
	FetchImage image;
	wrong.tar_size++;
	assert_int_equal(fetch_image_layers(&fixture->remote, &wrong, 1, &image, &fixture->error), -EBADMSG);
	assert_non_null(strstr(fixture->error.message, "the length of the layer is another"));
	assert_int_equal(fetch_image_layers(&fixture->remote, &wrong, 0, &image, &fixture->error), -EBADMSG);
}

/* Nobody is asked: what is here is enough, or it is not. */
static void test_offline(void **state)
{
	ImageFixture *fixture = *state;
	FetchImage image;
	fixture->remote.offline = true;
	refuse(fixture, -EHOSTUNREACH, "has not seen the tag before");
	fixture->reference.has_digest = true;
	fixture->reference.digest = fixture->manifest;
	refuse(fixture, -ENODATA, "does not have the manifest");
	assert_int_equal(fetch_image_layers(&fixture->remote, &fixture->layers[0].layer, 1, &image, &fixture->error),
			 -ENODATA);
	assert_non_null(strstr(fixture->error.message, "does not have the index of layer sha256:"));
	assert_int_equal(counts_of(fixture).requests, 0);

	fixture->remote.offline = fixture->reference.has_digest = false;
	get(fixture, false);
	unsigned before = counts_of(fixture).requests;
	fixture->remote.offline = true;
	fixture->remote.access.ca = "/nowhere"; /* not even what belongs to access has to be there */
	get(fixture, true);
	fixture->reference.has_digest = true;
	get(fixture, false);
	assert_int_equal(counts_of(fixture).requests, before);
	damage(fixture->cache_path, "indexes", &fixture->layers[1].layer.index, 0);
	refuse(fixture, -ENODATA, "does not have the index");
	fixture->remote.offline = false;
	refuse(fixture, -ENOENT, "/nowhere");
}

/* Another process evicts the first chunk of each layer. */
static void evict_first(void *arg, uint64_t done _unused_)
{
	const FetchImage *image = arg;
	uint8_t generation[4], bits = 0xfe;
	store_le32(generation, 2);
	for (uint32_t i = 0; i < LAYERS; i++) {
		int fd = image->layers[i].present_fd;
		assert_int_equal(pwrite(fd, generation, 4, (off_t)present_mark(i + 1, 0)), 4);
		assert_int_equal(pwrite(fd, &bits, 1, 0), 1);
	}
}

static bool is_sealed(ImageFixture *fixture)
{
	return cache_pin_has(fixture->cache, CACHE_SEAL, &fixture->manifest);
}

static void test_seal_of_what_is_whole(void **state)
{
	ImageFixture *fixture = *state;
	FetchImage image;
	FetchPullOptions options = { .timeout = 60000 };
	assert_int_equal(fetch_image_remote(&fixture->remote, &image, NULL), 0);
	assert_int_equal(fetch_seal_image(fixture->cache, &image, "app:v1", &fixture->error), -EIO);
	assert_false(is_sealed(fixture));
	for (size_t i = 0; i < LAYERS; i++)
		assert_false(cache_seal_is_valid(image.layers[i].seal_fd, &image.layers[i].layer.diff_id));

	assert_int_equal(fetch_pull(&image, &options, NULL), 0);
	options.progress = evict_first;
	options.arg = &image;
	assert_int_equal(fetch_pull_verify(&image, &options, &fixture->error), -EIO);
	assert_non_null(strstr(fixture->error.message, "has not kept all of it"));
	options.progress = NULL;
	assert_int_equal(fetch_pull(&image, &options, NULL), 0);
	assert_int_equal(fetch_pull_verify(&image, &options, NULL), 0);
	assert_int_equal(fetch_seal_image(fixture->cache, &image, "app:v1", &fixture->error), 0);
	assert_true(is_sealed(fixture));
	assert_true(fetch_seal_check(fixture->cache, &fixture->manifest, "app:v1"));
	fetch_image_done(&image);
}

static bool is_asked(void *arg)
{
	unsigned *questions = arg;
	return ++*questions > 2;
}

/* Nobody wants it any more while the source gives nothing: it ends, though it may wait for a day; and later it goes on. */
static void test_pull_given_up(void **state)
{
	ImageFixture *fixture = *state;
	FetchImage image;
	FetchPlan plan;
	unsigned questions = 0;
	FetchPullOptions options = { .timeout = 86400000, .given_up = is_asked, .arg = &questions };
	assert_int_equal(fetch_image_remote(&fixture->remote, &image, NULL), 0);
	fake_server_fault(fixture->server, FAKE_STALL_REQUEST, 0);
	assert_int_equal(fetch_pull(&image, &options, &fixture->error), -ECANCELED);
	assert_non_null(strstr(fixture->error.message, "what has come is kept"));
	assert_int_equal(questions, 3);
	assert_int_equal(fetch_pull_plan(&image, &plan, NULL), 0);
	assert_int_equal(plan.missing, plan.total);

	fake_server_fault(fixture->server, FAKE_NONE, 0);
	options.given_up = NULL;
	assert_int_equal(fetch_pull(&image, &options, NULL), 0);
	assert_int_equal(fetch_pull_plan(&image, &plan, NULL), 0);
	assert_int_equal(plan.present, plan.total);
	fetch_image_done(&image);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_done_on_nothing),
		cmocka_unit_test_setup_teardown(test_first_time, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_second_time_transfers_nothing, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_profile, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_registry_without_digests, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_tag_moves, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_by_digest_needs_no_registry, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_registry_is_gone, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_stale_mirror, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_registry_fails_or_stalls, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_tag_is_gone, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_wrong_manifest, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_corrupt_index_is_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_index_of_another_layer, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_rotten_cache, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_bad_manifest, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_local, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_layers, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_offline, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_seal_of_what_is_whole, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_pull_given_up, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
