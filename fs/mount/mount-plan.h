/*
 * What a server needs to know: which of its inherited descriptors is what, and where missing bytes come from. Written
 * once as JSON into a memfd, read by every server of the mount.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/base/error.h"
#include "fs/fetch/fetch-image.h"

#define MOUNT_PLAN_VERSION 3

typedef struct MountPlanLayer {
	int index_fd;
	int data_fd;
	int present_fd; /* -1: the blob is whole, of a local store */
	char *url;      /* NULL: there is no source but the blob */
	int decoded_fd; /* a decoded copy, or a place for the fill to make one; -1: neither */
	int seal_fd;    /* for fetch_fill_add(); -1: the layer is not filled */
	int twins_fd;   /* -1: no donor has any of its chunks */
} MountPlanLayer;

#define MOUNT_PLAN_NAME      "imgfs-plan"      /* of its memfd */
#define MOUNT_PLAN_SLOT_NAME "imgfs-slot-plan" /* of an image of the daemon: its numbers are places in a list */
#define MOUNT_PLAN_NULL                                                                            \
	{                                                                                          \
		.view_fd = -1, .record_fd = -1, .metrics_fd = -1, .profile_fd = -1, .cache_fd = -1 \
	}

/* The descriptors are numbers only, never closed by this object. */
typedef struct MountPlan {
	char *source; /* the reference with its digest, for the log */
	int64_t deadline;
	uint64_t fill_rate; /* bytes a second for all fills of the server; 0: what readers leave */
	uint64_t image_size;
	char *access; /* how to speak to the host of the URLs, for the fetcher; NULL: as to a stranger */
	char *manifest; /* its digest and that of the config ("sha256:..."), for who asks what is mounted; NULL: not known */
	char *config;
	int record_fd;  /* start-record.h; -1: reads are not recorded */
	int metrics_fd; /* server-metrics.h; -1: a server counts for itself alone */
	int profile_fd; /* docs/format.md section 7; -1: there is none */
	int cache_fd;   /* the cache's directory, for a janitor; -1: somebody else makes room in it */
	uint64_t quota; /* of that cache, bytes; 0: none */
	int view_fd;
	size_t donor_count;
	int *donor_fds;
	size_t layer_count;
	MountPlanLayer *layers; /* lowest first */
} MountPlan;

void mount_plan_done(MountPlan *plan); /* frees strings and layers */

/* The plan for an image, whose descriptors it shares, without record, metrics and profile; freed with mount_plan_done(). Errors: -ENOMEM. */
int mount_plan_from_image(const FetchImage *image, const char *source, int64_t deadline, MountPlan *ret_plan)
	_must_check_;

/* What a server may do for an image beside reading what is asked for. Zeroed: fill it, in a cache without a quota. */
typedef struct MountPlanUse {
	bool no_fill;
	uint64_t fill_rate; /* bytes a second; 0: what readers leave */
	CacheStore *cache;  /* where room is made for what is fetched, by `quota` bytes; NULL or 0: nowhere */
	uint64_t quota;
} MountPlanUse;
void mount_plan_use(MountPlan *plan, const FetchImage *image, const MountPlanUse *use);

/*
 * Has the view any xattr? The server answers ENOSYS to getxattr if not; then the kernel must not ask for ACLs either. Looks at the start
 * of the view alone. Errors carry a sentence.
 */
int mount_plan_has_xattrs(const FetchImage *image, bool *ret_has, Error *error) _must_check_;

/*
 * Calls each(arg, fd) for every descriptor that the plan names, in an order that is always the same, until that fails; each() may change
 * the number. Errors: each's.
 */
typedef int MountPlanEach(void *arg, int *fd);
int mount_plan_each(MountPlan *plan, MountPlanEach *each, void *arg) _must_check_;

/* Closes every descriptor that the plan still names. */
void mount_plan_close(MountPlan *plan);

/* Creates a record of reads (start-record.h) with what the plan says of its image. Errors: start_record_create()'s, -ENOMEM. */
int mount_plan_record(const MountPlan *plan, const char *place, const FetchImage *image, int *ret_fd) _must_check_;

/* The JSON of a plan, malloc'ed, the caller's. Errors: -ENOMEM. */
int mount_plan_encode(const MountPlan *plan, char **ret_json) _must_check_;

/* The same in a sealed memfd of this name, close-on-exec. Errors: memfd_create's, write's. */
int mount_plan_write(const MountPlan *plan, const char *name, int *ret_fd) _must_check_;

/* Errors: -EBADMSG with a sentence, -ENOMEM. */
int mount_plan_decode(const char *json, size_t size, MountPlan *ret_plan, Error *error) _must_check_;

/* Reads a plan from its memfd. Errors: as above, and read's. */
int mount_plan_read(int fd, MountPlan *ret_plan, Error *error) _must_check_;
