/* The whole server over a store made by hand, asked by a plain socket. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "fs/base/fd.h"
#include "fs/base/log.h"
#include "fs/format/format.h"
#include "layer-fixture.h"
#include "tools/serve/serve-listen.h"
#include "tools/serve/serve.h"

#define CONFIG "{\"architecture\":\"amd64\",\"os\":\"linux\"}"

typedef struct Context {
	char path[STORE_FIXTURE_PATH];
	Store *store;
	Server *server;
	ServeAddress address;
	int access_log;
	LayerFixture layer;
	char *manifest;
	char manifest_digest[DIGEST_TEXT_SIZE];
	char config_digest[DIGEST_TEXT_SIZE];
	char blob_digest[DIGEST_TEXT_SIZE];
	char diff_id[DIGEST_TEXT_SIZE];
} Context;

static void make_image(Context *context)
{
	static const uint32_t sizes[] = { 512, 200000, FORMAT_CHUNK_MAX, 77, FORMAT_CHUNK_MAX };
	layer_fixture_make(&context->layer, sizes, ELEMENTS(sizes), 3);
	layer_fixture_publish(&context->layer, context->store);
	Digest config, digest;
	size_t size;
	assert_int_equal(store_blob_put(context->store, CONFIG, strlen(CONFIG), &config, NULL), 0);
	Manifest manifest = {
		.config = config, .config_size = strlen(CONFIG), .layer_count = 1, .layers = &context->layer.layer
	};
	assert_int_equal(manifest_encode(&manifest, &context->manifest, &size), 0);
	assert_int_equal(store_blob_put(context->store, context->manifest, size, &digest, NULL), 0);
	static const char *const tags[][2] = {
		{ "team/image", "v1" }, { "team/image", "v2" }, { "team/image", "latest" },
		{ "team-a", "v1" },     { "alone", "x" },
	};
	for (size_t i = 0; i < ELEMENTS(tags); i++)
		assert_int_equal(store_tag_put(context->store, tags[i][0], tags[i][1], context->manifest, size, NULL),
				 0);
	(void)digest_text(&digest, context->manifest_digest);
	(void)digest_text(&config, context->config_digest);
	(void)digest_text(&context->layer.layer.blob, context->blob_digest);
	(void)digest_text(&context->layer.layer.diff_id, context->diff_id);
}

static int set_up(void **state)
{
	Context *context = calloc(1, sizeof(*context));
	assert_non_null(context);
	context->store = store_fixture_make(context->path);
	make_image(context);
	context->access_log = open(context->path, O_TMPFILE | O_RDWR | O_APPEND | O_CLOEXEC, 0600);
	assert_true(context->access_log >= 0);
	ServeAddress wanted;
	ServeOptions options = { .store = context->store, .access_log_fd = context->access_log, .connections = 100 };
	Error error = { 0 };
	assert_int_equal(serve_address_parse("127.0.0.1:0", &wanted, NULL), 0);
	assert_int_equal(serve_listen(&wanted, &options.listen_fd, &context->address, NULL), 0);
	int r = server_start(&options, &context->server, &error);
	if (r < 0)
		fail_msg("%s", error_text(&error, r));
	*state = context;
	return 0;
}

static int tear_down(void **state)
{
	Context *context = *state;
	(void)server_stop(context->server);
	(void)store_free(context->store);
	(void)close(context->access_log);
	store_fixture_remove(context->path);
	layer_fixture_done(&context->layer);
	free(context->manifest);
	free(context);
	return 0;
}

typedef struct Reply {
	char *bytes; /* all of them, NUL-terminated */
	size_t size;
	unsigned status;
	const char *body;
	size_t body_size;
} Reply;

static void reply_done(Reply *reply)
{
	free(reply->bytes);
}

/* Sends `text` as it is, reads until the server closes. */
static void send_raw(const Context *context, const char *text, Reply *ret_reply)
{
	Reply reply = { 0 };
	_cleanup_close_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(fd, (const struct sockaddr *)&context->address.storage, context->address.size), 0);
	assert_int_equal(fd_write_all(fd, text, strlen(text)), 0);
	size_t room = 2u << 20;
	reply.bytes = malloc(room + 1);
	assert_non_null(reply.bytes);
	ssize_t count = fd_read_full(fd, reply.bytes, room);
	assert_true(count >= 0);
	reply.size = (size_t)count;
	reply.bytes[count] = '\0';
	if (sscanf(reply.bytes, "HTTP/1.1 %u", &reply.status) != 1)
		reply.status = 0;
	const char *end = strstr(reply.bytes, "\r\n\r\n");
	reply.body = end ? end + 4 : reply.bytes + reply.size;
	reply.body_size = reply.size - (size_t)(reply.body - reply.bytes);
	*ret_reply = reply;
}

static Reply ask(void **state, const char *method, const char *path, const char *headers)
{
	char text[4096];
	Reply reply;
	(void)snprintf(text, sizeof(text), "%s %s HTTP/1.1\r\nHost: test\r\nConnection: close\r\n%s\r\n", method, path,
		       headers);
	send_raw(*state, text, &reply);
	return reply;
}

/* Does the reply have this header line? */
static void expect_header(const Reply *reply, const char *line)
{
	char whole[512];
	(void)snprintf(whole, sizeof(whole), "\r\n%s\r\n", line);
	const char *found = strcasestr(reply->bytes, whole);
	if (!found || found >= reply->body)
		fail_msg("no header \"%s\" in:\n%.*s", line, (int)(reply->body - reply->bytes), reply->bytes);
}

static void expect_headerf(const Reply *reply, const char *format, const char *value)
{
	char line[512];
	(void)snprintf(line, sizeof(line), "%s%s", format, value);
	expect_header(reply, line);
}

static void expect_body(const Reply *reply, unsigned status, const void *body, size_t size)
{
	char length[64];
	assert_int_equal(reply->status, status);
	(void)snprintf(length, sizeof(length), "Content-Length: %zu", size);
	expect_header(reply, length);
	assert_int_equal(reply->body_size, size);
	assert_memory_equal(reply->body, body, size);
}

static void expect_error(void **state, const char *path, const char *headers, unsigned status, const char *code)
{
	char text[128];
	_cleanup_(reply_done) Reply reply = ask(state, "GET", path, headers);
	if (reply.status != status)
		fail_msg("%s: %u instead of %u", path, reply.status, status);
	(void)snprintf(text, sizeof(text), "{\"errors\":[{\"code\":\"%s\",\"message\":\"", code);
	assert_memory_equal(reply.body, text, strlen(text));
	expect_header(&reply, "Content-Type: application/json");
}

static const char *path_of(char path[static 256], const char *before, const char *digest)
{
	(void)snprintf(path, 256, "%s%s", before, digest);
	return path;
}

static void test_base(void **state)
{
	_cleanup_(reply_done) Reply reply = ask(state, "GET", "/v2/", "");
	expect_body(&reply, 200, "{}", 2);
	expect_header(&reply, "Docker-Distribution-Api-Version: registry/2.0");
	assert_null(strcasestr(reply.bytes, "\r\nServer:"));
	_cleanup_(reply_done) Reply health = ask(state, "GET", "/healthz", "");
	expect_body(&health, 200, "ok\n", 3);
}

static void expect_manifest(void **state, const char *path)
{
	const Context *context = *state;
	_cleanup_(reply_done) Reply reply = ask(state, "GET", path, "");
	expect_body(&reply, 200, context->manifest, strlen(context->manifest));
	expect_header(&reply, "Content-Type: " MANIFEST_MEDIA_TYPE);
	expect_headerf(&reply, "Docker-Content-Digest: ", context->manifest_digest);

	_cleanup_(reply_done) Reply head = ask(state, "HEAD", path, "");
	assert_int_equal(head.status, 200);
	assert_int_equal(head.body_size, 0);
	expect_headerf(&head, "Docker-Content-Digest: ", context->manifest_digest);
	char length[64];
	(void)snprintf(length, sizeof(length), "Content-Length: %zu", strlen(context->manifest));
	expect_header(&head, length);
}

static void test_manifests(void **state)
{
	char path[256];
	expect_manifest(state, "/v2/team/image/manifests/v1");
	expect_manifest(state, path_of(path, "/v2/team/image/manifests/", ((Context *)*state)->manifest_digest));
	expect_error(state, "/v2/team/image/manifests/v3", "", 404, "MANIFEST_UNKNOWN");
	expect_error(state, "/v2/team/manifests/v1", "", 404, "MANIFEST_UNKNOWN");
	expect_error(state, "/v2/team/image/manifests/..", "", 404, "MANIFEST_UNKNOWN");
	expect_error(state, "/v2/TEAM/manifests/v1", "", 400, "NAME_INVALID");
}

static void test_what_is_no_manifest(void **state)
{
	const Context *context = *state;
	char path[256];
	expect_error(state, path_of(path, "/v2/alone/manifests/", context->config_digest), "", 404, "MANIFEST_UNKNOWN");
	expect_error(state, path_of(path, "/v2/alone/manifests/", context->blob_digest), "", 404, "MANIFEST_UNKNOWN");
	expect_error(state, path_of(path, "/v2/alone/manifests/", context->diff_id), "", 404, "MANIFEST_UNKNOWN");
}

static void test_corrupt_manifest(void **state)
{
	Context *context = *state;
	Digest digest;
	char path[STORE_FIXTURE_PATH + 128], url[256], hex[DIGEST_HEX_SIZE], text[DIGEST_TEXT_SIZE];
	assert_int_equal(store_blob_put(context->store, "a manifest", 10, &digest, NULL), 0);
	(void)snprintf(path, sizeof(path), "%s/blobs/sha256/%s", context->path, digest_hex(&digest, hex));
	assert_int_equal(chmod(path, 0644), 0);
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);
	assert_int_equal(fd_pwrite_all(fd, "A", 1, 0), 0);
	expect_error(state, path_of(url, "/v2/alone/manifests/", digest_text(&digest, text)), "", 500, "UNKNOWN");
}

static void test_blob_files(void **state)
{
	const Context *context = *state;
	char path[256];
	_cleanup_(reply_done) Reply config =
		ask(state, "GET", path_of(path, "/v2/team/image/blobs/", context->config_digest), "");
	expect_body(&config, 200, CONFIG, strlen(CONFIG));
	_cleanup_(reply_done) Reply blob =
		ask(state, "GET", path_of(path, "/v2/team/image/blobs/", context->blob_digest), "");
	expect_body(&blob, 200, context->layer.blob, context->layer.blob_size);
	expect_header(&blob, "Content-Type: application/octet-stream");
	expect_header(&blob, "Accept-Ranges: bytes");
	expect_headerf(&blob, "Docker-Content-Digest: ", context->blob_digest);
	_cleanup_(reply_done) Reply other = ask(state, "GET", path_of(path, "/imgfs/blobs/", context->blob_digest), "");
	expect_body(&other, 200, context->layer.blob, context->layer.blob_size);
	_cleanup_(reply_done) Reply head =
		ask(state, "HEAD", path_of(path, "/imgfs/blobs/", context->blob_digest), "Range: bytes=1-2\r\n");
	assert_int_equal(head.status, 200);
	assert_int_equal(head.body_size, 0);
}

static void test_tar(void **state)
{
	const Context *context = *state;
	char path[256];
	(void)path_of(path, "/v2/team/image/blobs/", context->diff_id);
	_cleanup_(reply_done) Reply tar = ask(state, "GET", path, "");
	expect_body(&tar, 200, context->layer.tar, context->layer.tar_size);
	expect_header(&tar, "Accept-Ranges: bytes");
	expect_headerf(&tar, "Docker-Content-Digest: ", context->diff_id);
	_cleanup_(reply_done) Reply head = ask(state, "HEAD", path, "");
	char length[64];
	(void)snprintf(length, sizeof(length), "Content-Length: %zu", context->layer.tar_size);
	assert_int_equal(head.status, 200);
	assert_int_equal(head.body_size, 0);
	expect_header(&head, length);
}

static void expect_range(void **state, const char *path, const uint8_t *whole, size_t size, size_t first, size_t last)
{
	char header[128], content_range[128];
	(void)snprintf(header, sizeof(header), "Range: bytes=%zu-%zu\r\n", first, last);
	(void)snprintf(content_range, sizeof(content_range), "Content-Range: bytes %zu-%zu/%zu", first, last, size);
	_cleanup_(reply_done) Reply reply = ask(state, "GET", path, header);
	expect_body(&reply, 206, whole + first, last - first + 1);
	expect_header(&reply, content_range);
}

/* RFC 9110 section 14.6. A part of 0-0 stands for the last five bytes. */
static void expect_multipart(const Reply *reply, const uint8_t *whole, size_t size, const size_t (*parts)[2],
			     size_t count)
{
	static const char type[] = "\r\nContent-Type: multipart/byteranges; boundary=";
	char boundary[64], text[256];
	assert_int_equal(reply->status, 206);
	const char *at = strcasestr(reply->bytes, type);
	assert_non_null(at);
	assert_int_equal(sscanf(at + strlen(type), "%63[0-9a-f]", boundary), 1);
	at = reply->body;
	for (size_t i = 0; i < count; i++) {
		bool last = parts[i][1] == 0;
		size_t first = last ? size - 5 : parts[i][0], end = last ? size - 1 : parts[i][1];
		int length = snprintf(text, sizeof(text),
				      "\r\n--%s\r\nContent-Type: application/octet-stream\r\n"
				      "Content-Range: bytes %zu-%zu/%zu\r\n\r\n",
				      boundary, first, end, size);
		assert_memory_equal(at, text, length);
		at += length;
		assert_memory_equal(at, whole + first, end - first + 1);
		at += end - first + 1;
	}
	int length = snprintf(text, sizeof(text), "\r\n--%s--\r\n", boundary);
	assert_memory_equal(at, text, length);
	assert_ptr_equal(at + length, reply->bytes + reply->size);
	(void)snprintf(text, sizeof(text), "Content-Length: %zu", reply->body_size);
	expect_header(reply, text);
}

static void expect_ranges(void **state, const char *path, const uint8_t *whole, size_t size)
{
	expect_range(state, path, whole, size, 0, 0);
	expect_range(state, path, whole, size, 511, 512);
	expect_range(state, path, whole, size, 100, size - 1);
	expect_range(state, path, whole, size, 200500, 200600);
	expect_range(state, path, whole, size, size - 1, size - 1);
	_cleanup_(reply_done) Reply suffix = ask(state, "GET", path, "Range: bytes=-10\r\n");
	expect_body(&suffix, 206, whole + size - 10, 10);
	_cleanup_(reply_done) Reply several = ask(state, "GET", path, "Range: bytes=3-4,100-200499,-5,0-1\r\n");
	static const size_t parts[][2] = { { 3, 4 }, { 100, 200499 }, { 0, 0 }, { 0, 1 } };
	expect_multipart(&several, whole, size, parts, ELEMENTS(parts));
	_cleanup_(reply_done) Reply overlap = ask(state, "GET", path, "Range: bytes=0-9,5-6\r\n");
	expect_body(&overlap, 200, whole, size);

	char unsatisfied[128];
	_cleanup_(reply_done) Reply outside = ask(state, "GET", path, "Range: bytes=99999999-\r\n");
	(void)snprintf(unsatisfied, sizeof(unsatisfied), "Content-Range: bytes */%zu", size);
	assert_int_equal(outside.status, 416);
	expect_header(&outside, unsatisfied);
}

static void test_ranges(void **state)
{
	const Context *context = *state;
	char path[256];
	expect_ranges(state, path_of(path, "/imgfs/blobs/", context->blob_digest), context->layer.blob,
		      context->layer.blob_size);
	expect_ranges(state, path_of(path, "/imgfs/blobs/", context->diff_id), context->layer.tar,
		      context->layer.tar_size);
}

static void test_conditions(void **state)
{
	const Context *context = *state;
	char path[256], headers[512];
	(void)path_of(path, "/imgfs/blobs/", context->diff_id);
	(void)snprintf(headers, sizeof(headers), "Range: bytes=0-9\r\nIf-Range: \"%s\"\r\n", context->diff_id);
	_cleanup_(reply_done) Reply same = ask(state, "GET", path, headers);
	expect_body(&same, 206, context->layer.tar, 10);
	_cleanup_(reply_done) Reply other = ask(state, "GET", path, "Range: bytes=0-9\r\nIf-Range: \"other\"\r\n");
	expect_body(&other, 200, context->layer.tar, context->layer.tar_size);

	(void)snprintf(headers, sizeof(headers), "If-None-Match: \"%s\"\r\n", context->diff_id);
	_cleanup_(reply_done) Reply fresh = ask(state, "GET", path, headers);
	assert_int_equal(fresh.status, 304);
	assert_int_equal(fresh.body_size, 0);
	(void)snprintf(path, sizeof(path), "Content-Length: %zu", context->layer.tar_size); /* of what is not sent */
	expect_header(&fresh, path);
	(void)snprintf(headers, sizeof(headers), "If-None-Match: \"%s\"\r\n", context->manifest_digest);
	_cleanup_(reply_done) Reply manifest = ask(state, "GET", "/v2/alone/manifests/x", headers);
	assert_int_equal(manifest.status, 304);
	(void)snprintf(path, sizeof(path), "Content-Length: %zu", strlen(context->manifest));
	expect_header(&manifest, path);
}

static void test_unknown_blobs(void **state)
{
	expect_error(state, "/imgfs/blobs/sha256:0000000000000000000000000000000000000000000000000000000000000000", "",
		     404, "BLOB_UNKNOWN");
	expect_error(state, "/v2/alone/blobs/sha256:0", "", 400, "DIGEST_INVALID");
	expect_error(state, "/v2/alone/blobs/../../imgfs-store", "", 404, "UNSUPPORTED");
	expect_error(state, "/imgfs-store", "", 404, "UNSUPPORTED");
	expect_error(state, "/../imgfs-store", "", 404, "UNSUPPORTED");
}

/* A connection that ends early, never wrong bytes. */
static void test_corrupt_chunk_cuts_the_connection(void **state)
{
	Context *context = *state;
	static const uint32_t sizes[] = { 1000, FORMAT_CHUNK_MAX, FORMAT_CHUNK_MAX, 4000 };
	LayerFixture layer;
	char path[256], diff_id[DIGEST_TEXT_SIZE];
	layer_fixture_make(&layer, sizes, ELEMENTS(sizes), 99);
	layer.blob[layer.blob_offsets[2] + 40] ^= 8;
	layer_fixture_publish(&layer, context->store);
	(void)path_of(path, "/imgfs/blobs/", digest_text(&layer.layer.diff_id, diff_id));
	_cleanup_(reply_done) Reply reply = ask(state, "GET", path, "");
	assert_int_equal(reply.status, 200);
	assert_true(reply.body_size <= 1000 + FORMAT_CHUNK_MAX);
	assert_memory_equal(reply.body, layer.tar, reply.body_size);
	_cleanup_(reply_done) Reply good = ask(state, "GET", path, "Range: bytes=0-999\r\n");
	expect_body(&good, 206, layer.tar, 1000);
	layer_fixture_done(&layer);
}

static void test_corrupt_index_is_a_fault(void **state)
{
	Context *context = *state;
	static const uint32_t sizes[] = { 1234 };
	LayerFixture layer;
	char path[256], diff_id[DIGEST_TEXT_SIZE];
	layer_fixture_make(&layer, sizes, ELEMENTS(sizes), 98);
	layer.blob[layer.layer.index_offset + 20] ^= 8;
	layer_fixture_publish(&layer, context->store);
	expect_error(state, path_of(path, "/imgfs/blobs/", digest_text(&layer.layer.diff_id, diff_id)), "", 500,
		     "UNKNOWN");
	layer_fixture_done(&layer);
}

static void expect_list(void **state, const char *path, const char *body, const char *link)
{
	_cleanup_(reply_done) Reply reply = ask(state, "GET", path, "");
	expect_body(&reply, 200, body, strlen(body));
	if (link)
		expect_headerf(&reply, "Link: ", link);
	else
		assert_null(strcasestr(reply.bytes, "\r\nLink:"));
}

static void test_lists(void **state)
{
	expect_list(state, "/v2/team/image/tags/list", "{\"name\":\"team/image\",\"tags\":[\"latest\",\"v1\",\"v2\"]}",
		    NULL);
	expect_list(state, "/v2/team/image/tags/list?n=2", "{\"name\":\"team/image\",\"tags\":[\"latest\",\"v1\"]}",
		    "</v2/team/image/tags/list?n=2&last=v1>; rel=\"next\"");
	expect_list(state, "/v2/team/image/tags/list?n=2&last=v1", "{\"name\":\"team/image\",\"tags\":[\"v2\"]}", NULL);
	expect_list(state, "/v2/team/image/tags/list?n=0", "{\"name\":\"team/image\",\"tags\":[]}", NULL);
	expect_list(state, "/v2/_catalog", "{\"repositories\":[\"alone\",\"team-a\",\"team/image\"]}", NULL);
	expect_list(state, "/v2/_catalog?n=1&last=team-a", "{\"repositories\":[\"team/image\"]}", NULL);
	expect_list(state, "/v2/_catalog?last=team%2Fimage", "{\"repositories\":[]}", NULL);
	expect_error(state, "/v2/_catalog?n=x", "", 400, "PAGINATION_NUMBER_INVALID");
	expect_error(state, "/v2/_catalog?n=-1", "", 400, "PAGINATION_NUMBER_INVALID");
	expect_error(state, "/v2/_catalog?last=%00", "", 400, "PAGINATION_NUMBER_INVALID");
	expect_error(state, "/v2/team/tags/list", "", 404, "NAME_UNKNOWN");
}

static void test_other_methods(void **state)
{
	static const char *const methods[] = { "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW" };
	for (size_t i = 0; i < ELEMENTS(methods); i++) {
		_cleanup_(reply_done) Reply reply =
			ask(state, methods[i], "/v2/team/image/blobs/uploads/", "Content-Length: 0\r\n");
		assert_int_equal(reply.status, 405);
		expect_header(&reply, "Allow: GET, HEAD");
	}
}

static void expect_raw(void **state, const char *text, unsigned status)
{
	Reply reply;
	send_raw(*state, text, &reply);
	if (reply.status != status)
		fail_msg("%u instead of %u for:\n%.200s\n%s", reply.status, status, text, reply.bytes);
	reply_done(&reply);
}

/* Bodies where none belongs are refused unread; a trailing request hidden in one is not answered. */
static void test_bodies_are_refused(void **state)
{
	static const char *const bodies[] = {
		"GET /healthz HTTP/1.1\r\nHost: test\r\nContent-Length: 100000\r\n\r\nbody",
		"GET /healthz HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
		("HEAD /healthz HTTP/1.1\r\nHost: test\r\nContent-Length: 45\r\n\r\n"
		 "GET /healthz HTTP/1.1\r\nHost: hidden\r\n\r\nxxxx"),
		("GET /healthz HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\nContent-Length: 41\r\n\r\n"
		 "GET /healthz HTTP/1.1\r\nHost: hidden\r\n\r\n"),
	};
	for (size_t i = 0; i < ELEMENTS(bodies); i++) {
		Reply reply;
		send_raw(*state, bodies[i], &reply);
		assert_int_equal(reply.status, 400);
		assert_null(strstr(reply.bytes + 1, "HTTP/1.1 "));
		reply_done(&reply);
	}
	expect_raw(state,
		   "PUT /v2/a/blobs/uploads/1 HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbo",
		   405);
	expect_raw(state, "GET /healthz HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", 200);
}

static void test_malformed_requests(void **state)
{
	expect_raw(state, "GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n", 400); /* no Host */
	expect_raw(state, "GET /healthz HTTP/1.1\r\nHost: test\r\nno colon\r\n\r\n", 400);
	expect_raw(state, "GET /healthz HTTP/1.1\r\nHost: test\r\nContent-Length: x\r\n\r\n", 400);
	size_t size = 100000;
	char *text = malloc(size + 64);
	int length = snprintf(text, size, "GET /healthz HTTP/1.1\r\nHost: test\r\nX: ");
	memset(text + length, 'a', size - (size_t)length);
	memcpy(text + size, "\r\n\r\n", 5);
	expect_raw(state, text, 431);
	length = snprintf(text, size, "GET /");
	memset(text + length, 'a', size - (size_t)length);
	(void)strcpy(text + size, " HTTP/1.1\r\nHost: test\r\n\r\n");
	expect_raw(state, text, 414);
	free(text);
}

static void test_pipelining(void **state)
{
	Reply reply;
	send_raw(*state,
		 "GET /v2/ HTTP/1.1\r\nHost: test\r\n\r\nGET /healthz HTTP/1.1\r\nHost: test\r\n\r\n"
		 "GET /nothing HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n",
		 &reply);
	const char *first = strstr(reply.bytes, "HTTP/1.1 200"), *second = strstr(first + 1, "HTTP/1.1 200");
	assert_non_null(second);
	assert_non_null(strstr(second, "HTTP/1.1 404"));
	reply_done(&reply);
}

static void test_metrics(void **state)
{
	static const char *const lines[] = {
		"\nimgfs_serve_requests_total{kind=\"health\",status=\"200\"} ",
		"\nimgfs_serve_requests_total{kind=\"blob\",status=\"206\"} ",
		"\nimgfs_serve_requests_total{kind=\"blob\",status=\"416\"} ",
		"\nimgfs_serve_request_seconds_bucket{le=\"+Inf\"} ",
		"\nimgfs_serve_connections_open 1\n",
		"\n# TYPE imgfs_serve_tar_bytes_total counter\n",
		"\nimgfs_serve_frames_failed_total 1\n",
	};
	_cleanup_(reply_done) Reply reply = { 0 };
	/* A connection's end is counted a little after its client has seen it. */
	do {
		reply_done(&reply);
		reply = ask(state, "GET", "/metrics", "");
		assert_int_equal(reply.status, 200);
	} while (!strstr(reply.body, lines[4]));
	expect_header(&reply, "Content-Type: text/plain; version=0.0.4");
	for (size_t i = 0; i < ELEMENTS(lines); i++)
		if (!strstr(reply.body, lines[i]))
			fail_msg("no %s in\n%s", lines[i], reply.body);
	unsigned long long tar_bytes = 0;
	assert_int_equal(sscanf(strstr(reply.body, "\nimgfs_serve_tar_bytes_total "),
				"\nimgfs_serve_tar_bytes_total %llu", &tar_bytes),
			 1);
	assert_true(tar_bytes > ((Context *)*state)->layer.tar_size);
	expect_error(state, "/imgfs/ca.pem", "", 404, "UNSUPPORTED"); /* there is no TLS */
}

static int connect_to(const ServeAddress *address)
{
	static const char request[] = "GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n";
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(fd, (const struct sockaddr *)&address->storage, address->size), 0);
	(void)send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL);
	return fd;
}

static void test_connections_are_limited(void **state)
{
	ServeOptions options = { .store = ((Context *)*state)->store, .access_log_fd = -1, .connections = 2 };
	ServeAddress wanted, actual;
	Server *server;
	int connections[2];
	char text[256];
	assert_int_equal(serve_address_parse("127.0.0.1:0", &wanted, NULL), 0);
	assert_int_equal(serve_listen(&wanted, &options.listen_fd, &actual, NULL), 0);
	assert_int_equal(server_start(&options, &server, NULL), 0);
	for (size_t i = 0; i < ELEMENTS(connections); i++) {
		connections[i] = connect_to(&actual);
		assert_true(recv(connections[i], text, sizeof(text), 0) > 0);
	}
	_cleanup_close_ int third = connect_to(&actual);
	assert_true(recv(third, text, sizeof(text), 0) <= 0);
	for (size_t i = 0; i < ELEMENTS(connections); i++)
		(void)close(connections[i]);
	(void)server_stop(server);
}

static Server *start_other(void **state, ServeOptions *options, ServeAddress *ret_address)
{
	ServeAddress wanted;
	Server *server;
	options->store = ((Context *)*state)->store;
	options->access_log_fd = -1;
	assert_int_equal(serve_address_parse("127.0.0.1:0", &wanted, NULL), 0);
	assert_int_equal(serve_listen(&wanted, &options->listen_fd, ret_address, NULL), 0);
	assert_int_equal(server_start(options, &server, NULL), 0);
	return server;
}

static int open_socket(const ServeAddress *address)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(fd, (const struct sockaddr *)&address->storage, address->size), 0);
	return fd;
}

/* Whoever sends a byte now and then is cut, before a first request and after a reply. */
static void test_headers_must_come_in_time(void **state)
{
	ServeOptions options = { .connections = 10, .first_request = 1500, .next_request = 1500 };
	ServeAddress address;
	Server *server = start_other(state, &options, &address);
	int silent = open_socket(&address), slow = open_socket(&address), idle = connect_to(&address);
	char text[512];
	assert_true(recv(idle, text, sizeof(text), 0) > 0);
	assert_int_equal(send(slow, "GET /heal", 9, MSG_NOSIGNAL), 9);
	while (recv(slow, text, sizeof(text), MSG_DONTWAIT) < 0) {
		(void)send(slow, "t", 1, MSG_NOSIGNAL);
		(void)usleep(20000);
	}
	assert_true(recv(silent, text, sizeof(text), 0) <= 0);
	assert_true(recv(idle, text, sizeof(text), 0) <= 0);
	int after = connect_to(&address);
	assert_true(recv(after, text, sizeof(text), 0) > 0);
	const int fds[] = { silent, slow, idle, after };
	for (size_t i = 0; i < ELEMENTS(fds); i++)
		(void)close(fds[i]);
	(void)server_stop(server);
}

static void test_connections_of_one_address_are_limited(void **state)
{
	ServeOptions options = { .connections = 10, .per_address = 2 };
	ServeAddress address;
	Server *server = start_other(state, &options, &address);
	char text[512];
	int first = connect_to(&address), second = connect_to(&address);
	assert_true(recv(first, text, sizeof(text), 0) > 0);
	assert_true(recv(second, text, sizeof(text), 0) > 0);
	int third = connect_to(&address);
	assert_true(recv(third, text, sizeof(text), 0) <= 0);
	(void)close(first);
	(void)close(second);
	(void)close(third);
	(void)server_stop(server);
}

/* What is under way is finished, what is idle ends, and nobody new gets in. */
static void test_draining(void **state)
{
	const Context *context = *state;
	ServeOptions options = { .connections = 10 };
	ServeAddress address;
	Server *server = start_other(state, &options, &address);
	char text[512];
	int idle = connect_to(&address), busy = open_socket(&address);
	assert_true(recv(idle, text, sizeof(text), 0) > 0);
	int length =
		snprintf(text, sizeof(text), "GET /imgfs/blobs/%s HTTP/1.1\r\nHost: test\r\n\r\n", context->diff_id);
	assert_int_equal(send(busy, text, (size_t)length, MSG_NOSIGNAL), length);
	assert_int_equal(recv(busy, text, 15, MSG_WAITALL), 15);
	assert_memory_equal(text, "HTTP/1.1 200 OK", 15);
	server_drain(server, 1);
	assert_true(recv(idle, text, sizeof(text), 0) <= 0);
	int late = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(late, (const struct sockaddr *)&address.storage, address.size), -1);
	size_t received = 0;
	for (ssize_t count; (count = recv(busy, text, sizeof(text), 0)) > 0;)
		received += (size_t)count;
	assert_true(received > context->layer.tar_size);
	(void)close(idle);
	(void)close(busy);
	(void)close(late);
	(void)server_stop(server);
}

static void test_access_log(void **state)
{
	Context *context = *state;
	_cleanup_(reply_done) Reply reply = ask(state, "GET", "/v2/%22\x1b[2J/manifests/x\"", "");
	assert_int_equal(reply.status, 400);
	const size_t room = 65536;
	_cleanup_free_ char *text = calloc(1, room);
	assert_non_null(text);
	/* The line is written after the reply was sent. */
	while (!strstr(text, "x22 400 "))
		assert_true(pread(context->access_log, text, room - 1, 0) >= 0);
	assert_non_null(strstr(text, " GET /v2/%22\\x1b[2J/manifests/x\\x22 400 "));
	assert_non_null(strstr(text, " GET /healthz 200 3 "));
	assert_null(strchr(text, '\x1b'));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_base),
		cmocka_unit_test(test_manifests),
		cmocka_unit_test(test_what_is_no_manifest),
		cmocka_unit_test(test_corrupt_manifest),
		cmocka_unit_test(test_blob_files),
		cmocka_unit_test(test_tar),
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_conditions),
		cmocka_unit_test(test_unknown_blobs),
		cmocka_unit_test(test_corrupt_chunk_cuts_the_connection),
		cmocka_unit_test(test_corrupt_index_is_a_fault),
		cmocka_unit_test(test_lists),
		cmocka_unit_test(test_other_methods),
		cmocka_unit_test(test_bodies_are_refused),
		cmocka_unit_test(test_malformed_requests),
		cmocka_unit_test(test_pipelining),
		cmocka_unit_test(test_metrics),
		cmocka_unit_test(test_headers_must_come_in_time),
		cmocka_unit_test(test_connections_of_one_address_are_limited),
		cmocka_unit_test(test_draining),
		cmocka_unit_test(test_connections_are_limited),
		cmocka_unit_test(test_access_log),
	};
	log_open("test-serve", LOG_LEVEL_WARNING);
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
