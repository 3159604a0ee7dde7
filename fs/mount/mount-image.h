/*
 * An image as a server serves it: the view, and the layers its bytes are in. It is opened when it is first needed, then
 * immutable. Whoever uses one holds a reference, and the last to let go frees it: so one that is taken away stays whole for
 * the requests under way. Thread-safe.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "fs/format/tree.h"
#include "fs/mount/mount-sources.h"
#include "fs/mount/start-recorder.h"

typedef enum MountImageState { MOUNT_IMAGE_CLOSED, MOUNT_IMAGE_OPEN, MOUNT_IMAGE_REFUSED } MountImageState;

typedef struct MountImage {
	uint32_t slot; /* upper half of its node numbers; 0: it is the whole of a private mount */
	bool xattr;    /* on the daemon's mount that answers for xattrs */
	char name[DIGEST_HEX_SIZE];
	_Atomic unsigned references;
	MountSources *sources;

	pthread_mutex_t opening; /* of the next one, until it is open */
	MountPlan plan;
	_Atomic int state; /* MountImageState */
	_Atomic bool told; /* that it cannot be opened for now: each request of many tries */

	FdMap view_map;
	Image view;
	Tree tree;
	bool has_xattrs;
	int64_t deadline; /* of a read, milliseconds */
	uint64_t image_size;
	uint64_t fill_rate; /* its limit of the fill, which goes with it; 0: none */
	MountSource *source;
	size_t layer_count;
	MountLayer **layers; /* by the view's numbers */
	StartRecorder *recorder;
} MountImage;

/* Which image, and where it appears. */
typedef struct MountPlace {
	uint32_t slot;
	bool xattr;
	const char *name; /* 64 hex digits of the chain ID; "" for a private mount */
} MountPlace;

/*
 * A closed image with one reference. `plan` and its descriptors become the image's, also on failure, and are let go once they were
 * used. Errors: -ENOMEM.
 */
int mount_image_new(MountSources *sources, const MountPlace *place, MountPlan *plan, MountImage **ret_image)
	_must_check_;
void mount_image_ref(MountImage *image);
MountImage *mount_image_unref(MountImage *image);
DEFINE_CLEANUP(MountImage, mount_image_unref);

/*
 * Reads and validates everything, unless that was done; blocks on the disk. Errors, each with a sentence when it happens: -EUCLEAN (the
 * view or an index is damaged, or cannot be read), -ENOMEM, -EAGAIN (no thread can be had), or what fetch_blob_set_twins() said; -EIO (it is
 * refused). The image is refused from then on, unless something lacked before the first layer was opened: it is MOUNT_IMAGE_CLOSED then.
 */
int mount_image_open(MountImage *image, Error *error) _must_check_;

/* It answers everything with EIO from now on. */
void mount_image_refuse(MountImage *image);

static inline uint64_t mount_image_node(const MountImage *image, uint32_t inode)
{
	return (uint64_t)image->slot << 32 | ((uint64_t)inode + 1);
}

/* Bytes of a layer that have to be fetched. */
typedef struct MountMissing {
	FetchBlob *blob;
	uint64_t tar_offset;
	uint64_t size;
} MountMissing;

/*
 * How many bytes a read of `size` bytes at `offset` gives: fewer only at the end of the file. The inode must be a
 * regular file.
 */
uint32_t mount_image_read_size(const TreeInode *inode, uint64_t offset, uint32_t size);

/* The chunks that a read of so many bytes uses, all of one layer; false for none. */
typedef struct MountChunks {
	uint32_t layer, first, count;
} MountChunks;
bool mount_image_chunks(const MountImage *image, const TreeInode *inode, uint64_t offset, uint32_t size,
			MountChunks *ret_chunks);

/*
 * Reads exactly `size` bytes, a count from mount_image_read_size(). Blocks on the disk at most. Errors: -EAGAIN (`ret_missing`
 * has to be fetched first), -EIO, -ENOMEM.
 */
int mount_image_read(const MountImage *image, FetchReader *reader, const TreeInode *inode, uint64_t offset,
		     uint32_t size, void *buffer, MountMissing *ret_missing) _must_check_;
