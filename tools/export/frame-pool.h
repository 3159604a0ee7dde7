/*
 * Threads that compress chunks, in a ring of jobs: the owner fills jobs in tar order and gets them back in the same
 * order. The owner is one thread, which compresses too while it waits. A job belongs to the owner between
 * frame_pool_reserve() and frame_pool_submit(), and between frame_pool_next() and frame_pool_release(); in between, to
 * the pool.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "fs/base/digest.h"
#include "fs/format/format.h"
#include "tools/export/layer-writer.h"

typedef struct FrameJob {
	uint8_t content[FORMAT_CHUNK_MAX]; /* with its size, the owner's to fill; the rest is the pool's */
	uint32_t content_size;
	uint64_t content_hash; /* XXH3 */
	uint8_t frame[FORMAT_FRAME_MAX];
	uint32_t frame_size;
	Digest frame_digest;
	bool reused; /* the frame is one that was found */
	int result;  /* 0, or why there is no frame */
} FrameJob;

typedef struct FramePool FramePool;

/*
 * Starts `jobs` - 1 threads (`jobs` from 1 to 256). Of `options`, which must outlive the pool, it uses level, find_frame and
 * find_frame_arg; a frame found is taken only if it is the very content. Errors: -EINVAL (level, jobs), -ENOMEM, -EAGAIN.
 */
int frame_pool_new(const LayerOptions *options, unsigned jobs, FramePool **ret_pool) _must_check_;

/* Ends the threads, whatever is still in the ring. Blocks until they have finished the chunk they are at. */
FramePool *frame_pool_free(FramePool *pool);
DEFINE_CLEANUP(FramePool, frame_pool_free);

/* A job to fill, or NULL when the ring is full: then frame_pool_next() has one. */
FrameJob *frame_pool_reserve(FramePool *pool);

/* Hands in the job last reserved. */
void frame_pool_submit(FramePool *pool);

/* The oldest job handed in, once it is done; blocks, or compresses others until then. NULL when the ring is empty. */
FrameJob *frame_pool_next(FramePool *pool);

/* Gives back the job last got from frame_pool_next(). */
void frame_pool_release(FramePool *pool);
