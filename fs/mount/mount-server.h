/*
 * What a server serves: the view, the layers its bytes are in, and the fetcher. Built once at the start from what the
 * plan names, then immutable; any thread may use it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "fs/base/error.h"
#include "fs/base/fd.h"
#include "fs/fetch/fetch.h"
#include "fs/format/tree.h"
#include "fs/mount/mount-plan.h"
#include "fs/mount/server-metrics.h"
#include "fs/mount/start-recorder.h"

typedef struct MountLayer {
	FdMap map;
	ChunkTable chunks;
	FetchBlob *blob;
} MountLayer;

typedef struct MountServer {
	FdMap view_map;
	Image view;
	Tree tree;
	bool has_xattrs;
	int64_t deadline; /* of a read, milliseconds */
	uint64_t image_size;
	size_t layer_count;
	MountLayer *layers; /* by the view's numbers */
	Fetcher *fetcher;
	FetchDonors *donors;
	ServerMetrics *metrics;
	StartRecorder *recorder;
} MountServer;

/*
 * Reads and validates everything; the layers' data, bitmap and decoded descriptors become the server's, also on failure. The fetcher is not
 * started. Errors: -EUCLEAN (the view or an index is damaged, or cannot be read), -ENOMEM, or what fetch_blob_set_twins() said, each
 * with a sentence.
 */
int mount_server_open(const MountPlan *plan, MountServer **ret_server, Error *error) _must_check_;
MountServer *mount_server_free(MountServer *server);
DEFINE_CLEANUP(MountServer, mount_server_free);

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
uint32_t mount_server_read_size(const TreeInode *inode, uint64_t offset, uint32_t size);

/* The chunks that a read of so many bytes uses, all of one layer; false for none. */
typedef struct MountChunks {
	uint32_t layer, first, count;
} MountChunks;
bool mount_server_chunks(const MountServer *server, const TreeInode *inode, uint64_t offset, uint32_t size,
			 MountChunks *ret_chunks);

/*
 * Reads exactly `size` bytes, a count from mount_server_read_size(). Blocks on the disk at most. Errors: -EAGAIN (`ret_missing`
 * has to be fetched first), -EIO, -ENOMEM.
 */
int mount_server_read(const MountServer *server, FetchReader *reader, const TreeInode *inode, uint64_t offset,
		      uint32_t size, void *buffer, MountMissing *ret_missing) _must_check_;
