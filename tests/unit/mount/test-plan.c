/* The plan of a mount, and the errnos of replies. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "fs/base/fd.h"
#include "fs/mount/mount-plan.h"
#include "fs/mount/reply-errno.h"

static char url[] = "http://build:8500/imgfs/blobs/sha256:00";
static char source[] = "imgfs:build:8500/whisk/\"invoker\":v2";

static char manifest[] = "sha256:11", config[] = "sha256:22";

static MountPlanLayer layers[] = {
	{ .index_fd = 5, .data_fd = 6, .present_fd = 7, .url = url, .decoded_fd = 9, .seal_fd = 13, .twins_fd = 10 },
	{ .index_fd = 8, .data_fd = 9, .present_fd = -1, .url = NULL, .decoded_fd = -1, .seal_fd = -1, .twins_fd = -1 },
};
static int donors[] = { 11, 12 };
static const MountPlan plan = {
	.source = source,
	.fill_rate = 14,
	.deadline = 30000,
	.image_size = UINT64_C(1) << 40,
	.manifest = manifest,
	.config = config,
	.record_fd = 13,
	.metrics_fd = 14,
	.profile_fd = -1,
	.view_fd = 4,
	.donor_count = ELEMENTS(donors),
	.donor_fds = donors,
	.layer_count = ELEMENTS(layers),
	.layers = layers,
};

static void check_equal(const MountPlan *got)
{
	assert_string_equal(got->source, source);
	assert_int_equal(got->deadline, 30000);
	assert_int_equal(got->image_size, UINT64_C(1) << 40);
	assert_int_equal(got->view_fd, 4);
	assert_string_equal(got->manifest, manifest);
	assert_string_equal(got->config, config);
	assert_int_equal(got->record_fd, 13);
	assert_int_equal(got->metrics_fd, 14);
	assert_int_equal(got->profile_fd, -1);
	assert_int_equal(got->layer_count, 2);
	assert_int_equal(got->layers[0].index_fd, 5);
	assert_int_equal(got->layers[0].data_fd, 6);
	assert_int_equal(got->layers[0].present_fd, 7);
	assert_string_equal(got->layers[0].url, url);
	assert_int_equal(got->layers[1].present_fd, -1);
	assert_null(got->layers[1].url);
	assert_int_equal(got->layers[0].decoded_fd, 9);
	assert_int_equal(got->layers[1].decoded_fd, -1);
	assert_int_equal(got->layers[0].seal_fd, 13);
	assert_int_equal(got->layers[1].seal_fd, -1);
	assert_int_equal(got->fill_rate, 14);
	assert_int_equal(got->layers[0].twins_fd, 10);
	assert_int_equal(got->layers[1].twins_fd, -1);
	assert_int_equal(got->donor_count, 2);
	assert_memory_equal(got->donor_fds, donors, sizeof(donors));
}

static void test_round_trip(_unused_ void **state)
{
	_cleanup_free_ char *json = NULL;
	assert_int_equal(mount_plan_encode(&plan, &json), 0);
	MountPlan got;
	Error error = { 0 };
	assert_int_equal(mount_plan_decode(json, strlen(json), &got, &error), 0);
	check_equal(&got);
	mount_plan_done(&got);
	mount_plan_done(&got);
	assert_null(got.layers);
}

static void test_read(_unused_ void **state)
{
	_cleanup_free_ char *json = NULL;
	assert_int_equal(mount_plan_encode(&plan, &json), 0);
	_cleanup_close_ int fd = memfd_create("plan", MFD_CLOEXEC);
	MountPlan got;
	assert_int_equal(mount_plan_read(fd, &got, NULL), -EBADMSG);
	assert_int_equal(fd_write_all(fd, json, strlen(json)), 0);
	assert_int_equal(mount_plan_read(fd, &got, NULL), 0);
	check_equal(&got);
	mount_plan_done(&got);
}

#define ROOT(version, view, deadline, layers)                                                                 \
	"{\"version\":" version ",\"source\":\"s\",\"deadline\":" deadline ",\"image_size\":1,\"view\":" view \
	",\"layers\":" layers "}"
#define LAYER(present) "[{\"index\":1,\"data\":2,\"present\":" present ",\"url\":null}]"

static void test_bad_plans(_unused_ void **state)
{
	static const char *const good = ROOT("3", "3", "5", LAYER("-1"));
	static const char *const bad[] = {
		"",
		"{",
		"[]",
		"{}",
		ROOT("2", "3", "5", LAYER("-1")),
		ROOT("3", "-1", "5", LAYER("-1")),
		ROOT("3", "3", "-5", LAYER("-1")),
		ROOT("3", "\"3\"", "5", LAYER("-1")),
		ROOT("3", "3", "5", "{}"),
		ROOT("3", "3", "5", "[{}]"),
		ROOT("3", "3", "5", "[1]"),
		ROOT("3", "3", "5", LAYER("-2")),
		ROOT("3", "3", "5", LAYER("1,\"twins\":-2")),
		ROOT("3", "3", "5", LAYER("1,\"decoded\":-2")),
		ROOT("3", "3", "5", LAYER("1,\"seal\":-2")),
		ROOT("3", "3", "5,\"fill_rate\":-1", LAYER("-1")),
		ROOT("3", "3", "5,\"donors\":[\"4\"]", LAYER("-1")),
		ROOT("3", "3", "5,\"donors\":4", LAYER("-1")),
		ROOT("3", "3", "5", "[{\"index\":-1,\"data\":2,\"present\":1,\"url\":null}]"),
		ROOT("3", "3", "5", "[{\"index\":1,\"data\":2,\"present\":1,\"url\":7}]"),
	};
	MountPlan got;
	assert_int_equal(mount_plan_decode(good, strlen(good), &got, NULL), 0);
	mount_plan_done(&got);
	for (size_t i = 0; i < ELEMENTS(bad); i++) {
		Error error = { 0 };
		assert_int_equal(mount_plan_decode(bad[i], strlen(bad[i]), &got, &error), -EBADMSG);
		assert_int_not_equal(error.message[0], '\0');
	}
}

static void test_tree_errors(_unused_ void **state)
{
	static const int meant[] = { ENOENT, ENODATA, ENOSYS, ENOTDIR, EISDIR,
				     EINVAL, ERANGE,  ENXIO,  ESTALE,  ENAMETOOLONG };
	for (size_t i = 0; i < ELEMENTS(meant); i++)
		assert_int_equal(reply_errno_tree(-meant[i]), meant[i]);
	static const int others[] = { EBADMSG, ENOMEM, EAGAIN, EIO, EINTR, EPERM, 0, 5000 };
	for (size_t i = 0; i < ELEMENTS(others); i++)
		assert_int_equal(reply_errno_tree(-others[i]), EIO);
}

/* A blob that the source has no more is a fault, not a file that does not exist. */
static void test_data_errors(_unused_ void **state)
{
	assert_int_equal(reply_errno_data(-EINTR), EINTR);
	for (int error = 1; error < 200; error++)
		if (error != EINTR)
			assert_int_equal(reply_errno_data(-error), EIO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),  cmocka_unit_test(test_read),
		cmocka_unit_test(test_bad_plans),   cmocka_unit_test(test_tree_errors),
		cmocka_unit_test(test_data_errors),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
