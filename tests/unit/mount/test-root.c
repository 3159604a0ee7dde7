/* One of the daemon's two mounts: images that come and go in its root, what they share, and one that is damaged. */
#include "tests/unit/mount/mount-fixture.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <dirent.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "fs/base/fd.h"

#define ROOT_NODE             UINT64_C(1)
#define NODE_IN(slot, number) ((uint64_t)(slot) << 32 | ((number) + 1u))
#define CHAIN_A               "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define CHAIN_B               "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define CHAIN_C               "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"

static MountFixture fixture;
static RunningMount running;
static Reply reply;

static void start(const MountFixtureOptions *options)
{
	mount_fixture_make(&fixture, options);
	mount_fixture_start(&fixture, &running);
}

static void stop(void)
{
	mount_fixture_stop(&fixture, &running);
	mount_fixture_done(&fixture);
}

static int add(uint32_t slot, bool xattr, const char *name)
{
	return mount_fixture_add(running.server, &fixture.plan, &(MountPlace){ slot, xattr, name }, NULL);
}

static int lookup(uint64_t parent, const char *name, struct fuse_entry_out *ret_entry)
{
	int r = request(&fixture, FUSE_LOOKUP, parent, name, strlen(name) + 1, &reply);
	if (r == 0) {
		assert_int_equal(reply.size, sizeof(*ret_entry));
		memcpy(ret_entry, reply.body, sizeof(*ret_entry));
	}
	return r;
}

static int getattr(uint64_t node, struct fuse_attr_out *ret_attr)
{
	struct fuse_getattr_in body = { 0 };
	int r = request(&fixture, FUSE_GETATTR, node, &body, sizeof(body), &reply);
	if (r == 0)
		memcpy(ret_attr, reply.body, sizeof(*ret_attr));
	return r;
}

/* The names of the root, after the entry at `offset`, each with a blank behind it. `size` bytes at once. */
static uint64_t list(uint64_t offset, uint32_t size, char *ret_names)
{
	struct fuse_read_in body = { .offset = offset, .size = size };
	assert_int_equal(request(&fixture, FUSE_READDIR, ROOT_NODE, &body, sizeof(body), &reply), 0);
	ret_names[0] = '\0';
	for (size_t at = 0; at < reply.size;) {
		const struct fuse_dirent *dirent = (const void *)(reply.body + at);
		assert_int_equal(dirent->type, DT_DIR);
		(void)strncat(ret_names, dirent->name, dirent->namelen);
		(void)strcat(ret_names, " ");
		offset = dirent->off;
		at += FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + dirent->namelen);
	}
	return offset;
}

static void test_come_and_go(_unused_ void **state)
{
	char names[1000];
	struct fuse_entry_out entry;
	struct fuse_attr_out before = { 0 }, after = { 0 };
	start(&(MountFixtureOptions){ .kind = OPS_PLAIN });
	assert_int_equal(getattr(ROOT_NODE, &before), 0);
	assert_int_equal(before.attr.mode, S_IFDIR | 0755);
	assert_int_equal(before.attr_valid, 0);
	assert_int_equal(lookup(ROOT_NODE, CHAIN_A, &entry), -ENOENT);
	assert_int_equal(add(7, false, CHAIN_A), 0);
	assert_int_equal(add(3, false, CHAIN_B), 0);
	assert_int_equal(add(4, true, CHAIN_C), 0); /* on the other mount */
	assert_int_equal(getattr(ROOT_NODE, &after), 0);
	assert_int_equal(after.attr.nlink, 4);
	assert_true(before.attr.mtime != after.attr.mtime || before.attr.mtimensec != after.attr.mtimensec);
	(void)list(0, 4096, names);
	assert_string_equal(names, ". .. " CHAIN_B " " CHAIN_A " ");

	assert_int_equal(lookup(ROOT_NODE, CHAIN_A, &entry), 0);
	assert_int_equal(entry.nodeid, NODE_IN(7, ROOT));
	assert_int_equal(entry.attr.ino, NODE_IN(7, ROOT));
	assert_int_equal(entry.entry_valid, 0);
	assert_int_equal(lookup(NODE_IN(7, ROOT), "file", &entry), 0);
	assert_int_equal(entry.nodeid, NODE_IN(7, FILE_INODE));
	assert_int_equal(entry.entry_valid, 1000000000);
	assert_int_equal(request_read(&fixture, NODE_IN(3, FILE_INODE), 100, 1000, &reply), 0);
	assert_memory_equal(reply.body, fixture.blob.tar + 101, 1000);

	assert_int_equal(mount_server_remove(running.server, 7), 0);
	assert_int_equal(mount_server_remove(running.server, 7), -ENOENT);
	assert_int_equal(getattr(NODE_IN(7, FILE_INODE), &after), -ESTALE);
	assert_int_equal(request_read(&fixture, NODE_IN(7, FILE_INODE), 100, 1000, &reply), -ESTALE);
	assert_int_equal(lookup(ROOT_NODE, CHAIN_A, &entry), -ENOENT);
	assert_int_equal(request_read(&fixture, NODE_IN(3, FILE_INODE), 100, 1000, &reply), 0);
	assert_int_equal(getattr(ROOT_NODE, &after), 0);
	assert_int_equal(after.attr.nlink, 3);
	stop();
}

/* A listing goes on after the name it had got to, whatever comes and goes meanwhile. */
static void test_listing_goes_on(_unused_ void **state)
{
	char names[1000];
	start(&(MountFixtureOptions){ .kind = OPS_PLAIN });
	assert_int_equal(add(2, false, CHAIN_A), 0);
	assert_int_equal(add(3, false, CHAIN_B), 0);
	uint64_t offset = list(0, 160, names);
	assert_string_equal(names, ". .. " CHAIN_A " ");
	assert_int_equal(mount_server_remove(running.server, 2), 0);
	assert_int_equal(add(9, false, CHAIN_C), 0);
	offset = list(offset, 4096, names);
	assert_string_equal(names, CHAIN_B " " CHAIN_C " ");
	assert_int_equal(list(offset, 4096, names), offset);
	assert_string_equal(names, "");
	stop();
}

static void test_refused_to_add(_unused_ void **state)
{
	start(&(MountFixtureOptions){ .kind = OPS_PLAIN });
	assert_int_equal(add(2, false, CHAIN_A), 0);
	assert_int_equal(add(2, false, CHAIN_B), -EEXIST);
	assert_int_equal(add(3, false, CHAIN_A), -EEXIST);
	assert_int_equal(add(3, true, CHAIN_A), 0);
	stop();
}

static void test_ways_up(_unused_ void **state)
{
	struct fuse_entry_out entry;
	start(&(MountFixtureOptions){ .kind = OPS_PLAIN });
	assert_int_equal(add(2, false, CHAIN_A), 0);
	assert_int_equal(lookup(NODE_IN(2, ROOT), "..", &entry), 0);
	assert_int_equal(entry.nodeid, ROOT_NODE);
	assert_int_equal(lookup(NODE_IN(2, DIRECTORY), "..", &entry), 0);
	assert_int_equal(entry.nodeid, NODE_IN(2, ROOT));
	assert_int_equal(lookup(ROOT_NODE, "..", &entry), 0);
	assert_int_equal(entry.nodeid, ROOT_NODE);
	assert_int_equal(lookup(ROOT_NODE, ".", &entry), 0);
	assert_int_equal(entry.nodeid, ROOT_NODE);
	stop();
}

static int getxattr(uint64_t node, const char *name)
{
	struct {
		struct fuse_getxattr_in in;
		char name[64];
	} body = { .in = { .size = 100 } };
	(void)snprintf(body.name, sizeof(body.name), "%s", name);
	return request(&fixture, FUSE_GETXATTR, node, &body, sizeof(body.in) + strlen(name) + 1, &reply);
}

/* The kernel remembers ENOSYS for the whole mount: it is for the one that has no xattr, and for that alone. */
static void test_xattrs(_unused_ void **state)
{
	start(&(MountFixtureOptions){ .kind = OPS_PLAIN });
	assert_int_equal(add(2, false, CHAIN_A), 0);
	assert_int_equal(getxattr(ROOT_NODE, "user.name"), -ENOSYS);
	assert_int_equal(getxattr(NODE_IN(2, FILE_INODE), "user.name"), -ENOSYS);
	stop();
	start(&(MountFixtureOptions){ .kind = OPS_XATTR, .xattrs = true });
	assert_int_equal(add(2, true, CHAIN_A), 0);
	assert_int_equal(getxattr(ROOT_NODE, "user.name"), -ENODATA);
	assert_int_equal(getxattr(NODE_IN(2, DIRECTORY), "user.name"), -ENODATA);
	assert_int_equal(getxattr(NODE_IN(2, FILE_INODE), "user.name"), 0);
	assert_memory_equal(reply.body, "some value", 10);
	stop();
}

static void test_root_is_a_directory(_unused_ void **state)
{
	struct fuse_attr_out attr;
	start(&(MountFixtureOptions){ .kind = OPS_XATTR });
	assert_int_equal(request_read(&fixture, ROOT_NODE, 0, 100, &reply), -EISDIR);
	assert_int_equal(request(&fixture, FUSE_READLINK, ROOT_NODE, NULL, 0, &reply), -EINVAL);
	assert_int_equal(request(&fixture, FUSE_STATFS, ROOT_NODE, NULL, 0, &reply), 0);
	assert_int_equal(getattr(2, &attr), -ESTALE);
	assert_int_equal(getattr(NODE_IN(1, 0), &attr), -ESTALE);
	assert_int_equal(add(1, false, CHAIN_A), 0); /* a handle of one mount is none of the other */
	assert_int_equal(getattr(NODE_IN(1, 0), &attr), -ESTALE);
	assert_int_equal(getattr(NODE_IN(0x80000000u, 0), &attr), -ESTALE);
	stop();
}

static MountImage *opened(uint32_t slot)
{
	MountImage *image;
	assert_int_equal(mount_server_get(running.server, slot, &image), 0);
	assert_int_equal(mount_image_open(image, NULL), 0);
	return image;
}

/* What one image has fetched is there for the other; with the last of them it goes. */
static void test_shared_layers(_unused_ void **state)
{
	start(&(MountFixtureOptions){ .kind = OPS_PLAIN, .absent = true, .source = true });
	assert_int_equal(add(2, false, CHAIN_A), 0);
	assert_int_equal(add(3, false, CHAIN_B), 0);
	assert_int_equal(request_read(&fixture, NODE_IN(2, FILE_INODE), 0, 100000, &reply), 0);
	FakeCounts before, after;
	fake_server_counts(fixture.source, &before);
	assert_int_equal(request_read(&fixture, NODE_IN(3, FILE_INODE), 0, 100000, &reply), 0);
	assert_memory_equal(reply.body, fixture.blob.tar + 1, 100000);
	fake_server_counts(fixture.source, &after);
	assert_int_equal(before.requests, after.requests);

	MountImage *first = opened(2), *second = opened(3);
	assert_ptr_equal(first->layers[0], second->layers[0]);
	assert_ptr_equal(first->source, second->source);
	mount_image_unref(first);
	mount_image_unref(second);
	assert_int_equal(mount_server_remove(running.server, 2), 0);
	assert_int_equal(request_read(&fixture, NODE_IN(3, FILE_INODE), 200000, 100000, &reply), 0);
	assert_memory_equal(reply.body, fixture.blob.tar + 200001, 100000);
	stop();
}

/* An index that claims the same blob but says otherwise what is in it shares nothing with one that does not. */
static void test_other_chunks_are_not_shared(_unused_ void **state)
{
	start(&(MountFixtureOptions){ .kind = OPS_PLAIN });
	assert_int_equal(add(2, false, CHAIN_A), 0);
	BlobFixture other;
	blob_fixture_make(&other, CHUNKS, CHUNK_SIZE, 3);
	assert_int_equal(other.index_size, fixture.blob.index_size);
	MountImage *image = opened(2);
	int data_fd = dup(fixture.layer.data_fd);
	MountPlanLayer layer = { .index_fd = dup(fixture.layer.index_fd),
				 .data_fd = data_fd,
				 .present_fd = -1,
				 .decoded_fd = -1,
				 .twins_fd = -1 };
	MountLayer *same;
	assert_int_equal(mount_layer_get(image->source, &layer, &fixture.blob.layer.diff_id, NULL, &same, NULL), 0);
	assert_ptr_equal(same, image->layers[0]);
	mount_layer_put(same);
	blob_fixture_done(&other);

	blob_fixture_make(&other, CHUNKS, CHUNK_SIZE, 4);
	int index_fd = memfd_create("index", MFD_CLOEXEC);
	assert_int_equal(fd_pwrite_all(index_fd, other.index, other.index_size, 0), 0);
	layer = (MountPlanLayer){ .index_fd = index_fd,
				  .data_fd = dup(fixture.layer.data_fd),
				  .present_fd = -1,
				  .decoded_fd = -1,
				  .twins_fd = -1 };
	MountLayer *apart;
	assert_int_equal(mount_layer_get(image->source, &layer, &other.layer.diff_id, NULL, &apart, NULL), 0);
	assert_ptr_not_equal(apart, image->layers[0]);
	mount_layer_put(apart);
	mount_image_unref(image);
	blob_fixture_done(&other);
	stop();
}

/* A read that waits for the network keeps its image, though that is gone for all others. */
static void test_removed_under_a_read(_unused_ void **state)
{
	struct fuse_attr_out attr;
	start(&(MountFixtureOptions){ .kind = OPS_PLAIN, .absent = true, .source = true });
	assert_int_equal(add(2, false, CHAIN_A), 0);
	assert_int_equal(getattr(NODE_IN(2, FILE_INODE), &attr), 0);
	fake_server_hold(fixture.source, true);
	uint64_t unique = request_read_send(&fixture, NODE_IN(2, FILE_INODE), 0, 50000);
	assert_false(reply_is_there(&fixture, 50));
	assert_int_equal(mount_server_remove(running.server, 2), 0);
	assert_int_equal(getattr(NODE_IN(2, FILE_INODE), &attr), -ESTALE);
	fake_server_hold(fixture.source, false);
	reply_receive(&fixture, &reply);
	assert_int_equal(reply.header.unique, unique);
	assert_int_equal(reply.header.error, 0);
	assert_memory_equal(reply.body, fixture.blob.tar + 1, 50000);
	stop();
}

/* A damaged view is EIO for that image alone. */
static void test_damaged(_unused_ void **state)
{
	struct fuse_attr_out attr;
	struct fuse_entry_out entry;
	start(&(MountFixtureOptions){ .kind = OPS_PLAIN });
	assert_int_equal(add(2, false, CHAIN_A), 0);
	MountPlan plan = fixture.plan;
	plan.view_fd = memfd_create("damaged", MFD_CLOEXEC);
	assert_int_equal(fd_pwrite_all(plan.view_fd, fixture.view, fixture.view_size, 0), 0);
	assert_int_equal(fd_pwrite_all(plan.view_fd, "damage", 6, fixture.view_size / 2), 0);
	assert_int_equal(mount_fixture_add(running.server, &plan, &(MountPlace){ .slot = 3, .name = CHAIN_B }, NULL),
			 0);
	(void)close(plan.view_fd);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(lookup(ROOT_NODE, CHAIN_B, &entry), -EIO);
		assert_int_equal(getattr(NODE_IN(3, FILE_INODE), &attr), -EIO);
		assert_int_equal(request_read(&fixture, NODE_IN(3, FILE_INODE), 0, 10, &reply), -EIO);
		assert_int_equal(request_read(&fixture, NODE_IN(2, FILE_INODE), 0, 10, &reply), 0);
	}
	MountImage *image;
	assert_int_equal(mount_server_get(running.server, 2, &image), 0);
	mount_image_refuse(image);
	mount_image_unref(image);
	assert_int_equal(request_read(&fixture, NODE_IN(2, FILE_INODE), 0, 10, &reply), -EIO);
	stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_come_and_go),
		cmocka_unit_test(test_listing_goes_on),
		cmocka_unit_test(test_refused_to_add),
		cmocka_unit_test(test_ways_up),
		cmocka_unit_test(test_xattrs),
		cmocka_unit_test(test_root_is_a_directory),
		cmocka_unit_test(test_shared_layers),
		cmocka_unit_test(test_other_chunks_are_not_shared),
		cmocka_unit_test(test_removed_under_a_read),
		cmocka_unit_test(test_damaged),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
