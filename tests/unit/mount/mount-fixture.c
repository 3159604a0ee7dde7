#include "tests/unit/mount/mount-fixture.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "fs/base/fd.h"

#define REPLY_TIMEOUT 60000

static uint64_t last_unique = 100;

uint32_t request_thread;

/* The thread sanitizer asks for this; servers are forked while the fake registry's threads run. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
	return "die_after_fork=0";
}

static TreeString text(const char *string)
{
	return (TreeString){ .data = string, .size = strlen(string) };
}

static void add_inodes(TreeWriter *tree, uint64_t tar_size, bool xattrs)
{
	const TreeExtent extents[] = { { SPARSE_FIRST, 7, SPARSE_LENGTH }, { SPARSE_SECOND, 70000, SPARSE_LENGTH } };
	const TreeXattr attributes[] = { { text("trusted.overlay.opaque"), text("y") },
					 { text("user.name"), text("some value") } };
	const TreeInode inodes[INODES] = {
		[ROOT] = { .mode = S_IFDIR | 0755, .nlink = 3 },
		[DIRECTORY] = { .mode = S_IFDIR | 0700, .nlink = 2, .uid = 5, .gid = 6, .parent = ROOT },
		[FILE_INODE] = { .mode = S_IFREG | 04755,
				 .nlink = 1,
				 .uid = 1000,
				 .gid = 1001,
				 .mtime_sec = 1234567890,
				 .mtime_nsec = 123456789,
				 .size = tar_size - 1,
				 .data = 1 },
		[SPARSE] = { .mode = S_IFREG | 0644, .nlink = 1, .flags = TREE_SPARSE, .size = SPARSE_SIZE },
		[LINK] = { .mode = S_IFLNK | 0777, .nlink = 1, .size = 9 },
		[DEVICE] = { .mode = S_IFCHR | 0666, .nlink = 1, .data = UINT64_C(5) << 32 | 300 },
		[EMPTY] = { .mode = S_IFREG | 0600, .nlink = MANY },
		[BEYOND] = { .mode = S_IFREG | 0600, .nlink = 1, .size = 100, .data = tar_size - 50 },
	};
	for (unsigned i = 0; i < INODES; i++) {
		TreeExtras extras = { 0 };
		uint32_t number;
		if (i == SPARSE)
			extras = (TreeExtras){ .extents = extents, .extent_count = ELEMENTS(extents) };
		if (i == LINK)
			extras.target = text("some/file");
		if (i == FILE_INODE && xattrs)
			extras = (TreeExtras){ .xattrs = attributes, .xattr_count = ELEMENTS(attributes) };
		assert_int_equal(tree_writer_add_inode(tree, &inodes[i], &extras, &number), 0);
		assert_int_equal(number, i);
	}
}

static void add_entries(TreeWriter *tree)
{
	const TreeDirent root[] = {
		{ BEYOND, DT_REG, text("beyond") },       { DEVICE, DT_CHR, text("device") },
		{ DIRECTORY, DT_DIR, text("directory") }, { FILE_INODE, DT_REG, text("file") },
		{ LINK, DT_LNK, text("link") },           { SPARSE, DT_REG, text("sparse") },
	};
	assert_int_equal(tree_writer_add_entries(tree, ROOT, root, ELEMENTS(root)), 0);
	static char names[MANY][FORMAT_NAME_MAX + 1];
	TreeDirent many[MANY];
	for (unsigned i = 0; i < MANY; i++) {
		(void)snprintf(names[i], sizeof(names[i]), "%04u%0*u", i, (int)(i % 250 + 1), 0);
		many[i] = (TreeDirent){ EMPTY, DT_REG, text(names[i]) };
	}
	assert_int_equal(tree_writer_add_entries(tree, DIRECTORY, many, MANY), 0);
}

static void make_view(MountFixture *fixture, bool xattrs)
{
	ImageHeader header = { .kind = FORMAT_KIND_VIEW, .id = fixture->blob.layer.diff_id };
	ImageWriter *image;
	TreeWriter *tree;
	assert_int_equal(image_writer_new(&header, &image), 0);
	assert_int_equal(tree_writer_new(&tree), 0);
	add_inodes(tree, fixture->blob.layer.tar_size, xattrs);
	add_entries(tree);
	assert_int_equal(tree_writer_finish(tree, image), 0);
	assert_int_equal(image_writer_add(image, FORMAT_SECTION_LAYERS, FORMAT_SECTION_MANDATORY,
					  fixture->blob.layer.diff_id.bytes, DIGEST_SIZE),
			 0);
	assert_int_equal(image_writer_finish(image, &fixture->view, &fixture->view_size), 0);
	tree_writer_free(tree);
	image_writer_free(image);
}

static int memory_file(const void *data, size_t size)
{
	int fd = memfd_create("fixture", MFD_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(fd_pwrite_all(fd, data, size, 0), 0);
	return fd;
}

static void start_source(MountFixture *fixture)
{
	char digest[DIGEST_TEXT_SIZE];
	fixture->directory = scratch_make();
	blob_fixture_publish(&fixture->blob, fixture->directory);
	assert_int_equal(fake_server_new(fixture->directory, &fixture->source), 0);
	assert_true(asprintf(&fixture->layer.url, "http://%s/v2/app/blobs/%s", fake_server_host(fixture->source),
			     digest_text(&fixture->blob.layer.blob, digest)) > 0);
}

static void open_cache(MountFixture *fixture, bool absent)
{
	fixture->layer.decoded_fd = -1;
	fixture->layer.twins_fd = -1;
	if (!absent) {
		fixture->layer.data_fd = memory_file(fixture->blob.blob, fixture->blob.blob_size);
		fixture->layer.present_fd = -1;
		return;
	}
	const uint8_t nothing[(CHUNKS + 7) / 8] = { 0 };
	fixture->layer.data_fd = memory_file("", 0);
	assert_int_equal(ftruncate(fixture->layer.data_fd, (off_t)fixture->blob.blob_size), 0);
	fixture->layer.present_fd = memory_file(nothing, sizeof(nothing));
}

void mount_fixture_make(MountFixture *fixture, const MountFixtureOptions *options)
{
	*fixture = (MountFixture){ .kind = options->kind };
	blob_fixture_make(&fixture->blob, CHUNKS, CHUNK_SIZE, 3);
	make_view(fixture, options->xattrs);
	fixture->layer.index_fd = memory_file(fixture->blob.index, fixture->blob.index_size);
	open_cache(fixture, options->absent);
	if (options->source)
		start_source(fixture);
	static char source[] = "test";
	int record, metrics;
	assert_int_equal(start_record_create(&(StartRecordLabel){ .source = "test" }, NULL, 0, &record), 0);
	assert_int_equal(server_metrics_create(&metrics), 0);
	fixture->plan = (MountPlan){
		.source = source,
		.record_fd = record,
		.metrics_fd = metrics,
		.profile_fd = -1,
		.deadline = options->deadline ? options->deadline : 10000,
		.image_size = 123456789,
		.view_fd = memory_file(fixture->view, fixture->view_size),
		.layer_count = 1,
		.layers = &fixture->layer,
	};
	int ends[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
	fixture->kernel = ends[0];
	fixture->device = ends[1];
	int room = 1 << 20;
	(void)setsockopt(fixture->device, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	assert_int_equal(journal_create(&fixture->journal_fd), 0);
}

void mount_fixture_done(MountFixture *fixture)
{
	fake_server_free(fixture->source);
	if (fixture->directory)
		scratch_remove(fixture->directory);
	const int fds[] = { fixture->layer.index_fd, fixture->layer.data_fd,  fixture->layer.present_fd,
			    fixture->plan.view_fd,   fixture->kernel,         fixture->device,
			    fixture->journal_fd,     fixture->plan.record_fd, fixture->plan.metrics_fd };
	for (size_t i = 0; i < ELEMENTS(fds); i++)
		close_p(&fds[i]);
	free(fixture->layer.url);
	free(fixture->view);
	blob_fixture_done(&fixture->blob);
}

/* Linux 6.1 offered about this. */
static void start_session(MountFixture *fixture, RunningMount *running)
{
	struct {
		struct fuse_in_header header;
		struct fuse_init_in body;
	} init = {
		.header = { .len = sizeof(init), .opcode = FUSE_INIT, .unique = 2 },
		.body = { .major = 7, .minor = 37, .flags = INT32_MAX },
	};
	assert_int_equal(session_new(dup(fixture->device), &init, sizeof(init), &running->ops, running->journal,
				     &running->session, NULL),
			 0);
	session_recover(running->session);
	assert_int_equal(session_start(running->session), 0);
}

static int copy_descriptor(_unused_ void *arg, int *fd)
{
	*fd = dup(*fd);
	assert_true(*fd >= 0);
	return 0;
}

int mount_fixture_add(MountServer *server, const MountPlan *plan, const MountPlace *place, MountImage **ret_image)
{
	MountPlan own;
	_cleanup_free_ char *json = NULL;
	assert_int_equal(mount_plan_encode(plan, &json), 0);
	assert_int_equal(mount_plan_decode(json, strlen(json), &own, NULL), 0);
	assert_int_equal(mount_plan_each(&own, copy_descriptor, NULL), 0);
	return mount_server_add(server, place, &own, ret_image);
}

static void open_server(MountFixture *fixture, RunningMount *running)
{
	MountImage *image;
	Error error = { 0 };
	assert_int_equal(mount_server_new(fixture->plan.metrics_fd, &running->server), 0);
	if (fixture->kind == OPS_PRIVATE) {
		assert_int_equal(
			mount_fixture_add(running->server, &fixture->plan, &(MountPlace){ .name = "" }, &image), 0);
		int r = mount_image_open(image, &error);
		if (r < 0)
			fail_msg("%s", error.message);
		mount_image_unref(image);
	}
	assert_int_equal(journal_open(fixture->journal_fd, &running->journal), 0);
	assert_int_equal(read_pool_new(mount_server_metrics(running->server), &running->pool), 0);
	running->ops = (Ops){ .kind = fixture->kind, .server = running->server, .pool = running->pool };
}

void mount_fixture_start(MountFixture *fixture, RunningMount *running)
{
	open_server(fixture, running);
	start_session(fixture, running);
}

void mount_fixture_stop(MountFixture *fixture, RunningMount *running)
{
	(void)shutdown(fixture->device, SHUT_RDWR);
	assert_int_equal(session_wait(running->session), 0);
	mount_server_stop(running->server);
	read_pool_free(running->pool);
	session_free(running->session);
	journal_free(running->journal);
	mount_server_free(running->server);
}

pid_t mount_fixture_fork(MountFixture *fixture)
{
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves none behind */
		RunningMount running;
		mount_fixture_start(fixture, &running);
		for (;;)
			pause();
	}
	return pid;
}

uint64_t request_send(MountFixture *fixture, uint32_t opcode, uint64_t node, const void *body, size_t size)
{
	uint8_t message[4096];
	struct fuse_in_header header = { .len = (uint32_t)(sizeof(header) + size),
					 .opcode = opcode,
					 .nodeid = node,
					 .unique = last_unique += 2,
					 .pid = request_thread };
	memcpy(message, &header, sizeof(header));
	if (size > 0)
		memcpy(message + sizeof(header), body, size);
	assert_int_equal(send(fixture->kernel, message, header.len, 0), header.len);
	return header.unique;
}

bool reply_is_there(MountFixture *fixture, int timeout)
{
	struct pollfd waiting = { .fd = fixture->kernel, .events = POLLIN };
	return poll(&waiting, 1, timeout) == 1;
}

void reply_receive(MountFixture *fixture, Reply *ret_reply)
{
	assert_true(reply_is_there(fixture, REPLY_TIMEOUT));
	struct iovec parts[] = { { &ret_reply->header, sizeof(ret_reply->header) },
				 { ret_reply->body, sizeof(ret_reply->body) } };
	ssize_t size = readv(fixture->kernel, parts, ELEMENTS(parts));
	assert_true(size >= (ssize_t)sizeof(ret_reply->header));
	assert_int_equal(ret_reply->header.len, size);
	ret_reply->size = (size_t)size - sizeof(ret_reply->header);
}

int request(MountFixture *fixture, uint32_t opcode, uint64_t node, const void *body, size_t size, Reply *ret_reply)
{
	uint64_t unique = request_send(fixture, opcode, node, body, size);
	reply_receive(fixture, ret_reply);
	assert_int_equal(ret_reply->header.unique, unique);
	if (ret_reply->header.error != 0)
		assert_int_equal(ret_reply->size, 0);
	return ret_reply->header.error;
}

uint64_t request_read_send(MountFixture *fixture, uint64_t node, uint64_t offset, uint32_t size)
{
	struct fuse_read_in body = { .offset = offset, .size = size };
	return request_send(fixture, FUSE_READ, node, &body, sizeof(body));
}

int request_read(MountFixture *fixture, uint64_t node, uint64_t offset, uint32_t size, Reply *ret_reply)
{
	struct fuse_read_in body = { .offset = offset, .size = size };
	return request(fixture, FUSE_READ, node, &body, sizeof(body), ret_reply);
}
