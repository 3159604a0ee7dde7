/* Checks of the cache and of the disk it is on. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "fs/cache/cache-contents.h"
#include "fs/cache/cache-pins.h"
#include "tools/cmd/doctor.h"
#include "tools/cmd/output.h"

#define FREE_WANT (UINT64_C(1) << 30)

static void check_space(Doctor *doctor, int dirfd)
{
	struct statvfs status;
	char left[OUTPUT_SIZE_TEXT];
	if (fstatvfs(dirfd, &status) < 0)
		return;
	uint64_t bytes = (uint64_t)status.f_bavail * status.f_frsize;
	if (status.f_flag & ST_RDONLY)
		doctor_say(doctor, DOCTOR_WARN, "mount it read-write",
			   "the cache's file system is read-only: nothing is kept");
	else if (bytes < FREE_WANT)
		doctor_say(doctor, DOCTOR_WARN, "imgfs cache prune, imgfs cache evict --free SIZE, or a larger disk",
			   "the cache's disk has %s left", output_size(bytes, left));
	else
		doctor_say(doctor, DOCTOR_GOOD, NULL, "the cache's disk has %s left", output_size(bytes, left));
	if (status.f_files > 0 && status.f_favail < 1000)
		doctor_say(doctor, DOCTOR_WARN, "imgfs cache prune", "the cache's disk is out of inodes");
}

/* Eviction takes parts of files back. */
static void check_holes(Doctor *doctor, int dirfd)
{
	_cleanup_close_ int fd = openat(dirfd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0 || pwrite(fd, "x", 1, 0) != 1)
		return;
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 1) < 0 && errno == EOPNOTSUPP)
		doctor_say(doctor, DOCTOR_WARN, "put the cache on ext4, xfs, btrfs or tmpfs",
			   "the cache's file system has no holes: a quota cannot be held");
}

static void check_mode(Doctor *doctor, int dirfd)
{
	struct stat status;
	if (fstat(dirfd, &status) < 0 || !(status.st_mode & 077))
		return;
	if (doctor->fix && fchmod(dirfd, status.st_mode & 0700) == 0)
		doctor_say(doctor, DOCTOR_FIXED, NULL, "the cache was open to other users, who might read images");
	else
		doctor_say(doctor, DOCTOR_BAD, "chmod 700, or --fix",
			   "the cache is open to other users, who may read images");
}

void doctor_cache(Doctor *doctor)
{
	_cleanup_(cache_store_free_p) CacheStore *cache = NULL;
	Error error = { 0 };
	int r = remote_options_cache(&doctor->remote, doctor->fix, &cache, &error);
	if (r == -ENOENT) {
		doctor_say(doctor, DOCTOR_NOTE, NULL, "%s", error.message);
		return;
	}
	if (r < 0) {
		doctor_say(doctor, DOCTOR_BAD, "name another directory (--cache, [cache] cache =), or empty that one",
			   "%s", error.message);
		return;
	}
	check_space(doctor, cache_store_fd(cache));
	check_holes(doctor, cache_store_fd(cache));
	check_mode(doctor, cache_store_fd(cache));
}

void doctor_pins(Doctor *doctor)
{
	_cleanup_(cache_store_free_p) CacheStore *cache = NULL;
	CachePin *pins = NULL;
	size_t count = 0;
	Error error = { 0 };
	if (remote_options_cache(&doctor->remote, false, &cache, NULL) < 0)
		return;
	if (cache_pins_list(cache, &pins, &count, &error) < 0) {
		doctor_say(doctor, DOCTOR_BAD, "remove that file; until then nothing is evicted", "%s", error.message);
		return;
	}
	for (size_t i = 0; i < count; i++) {
		_cleanup_close_ int fd = -1;
		if (cache_store_get(cache, CACHE_MANIFEST, &pins[i].manifest, &fd) < 0)
			doctor_say(doctor, DOCTOR_WARN, "imgfs pull it, or imgfs cache unpin it",
				   "%s is %s, but its manifest is gone", pins[i].reference,
				   pins[i].kind == CACHE_PIN ? "pinned" : "sealed");
	}
	doctor_say(doctor, DOCTOR_GOOD, NULL, "%zu pins and seals; imgfs cache verify reads everything else", count);
	cache_pins_free(pins, count);
}
