/*
 * A server without a kernel: a view of one layer, and a session whose descriptor is one end of a socket pair; a test speaks FUSE
 * at the other. Socket pairs of this kind keep messages whole, as /dev/fuse does.
 */
#pragma once

#include <linux/fuse.h>

#include "fs/mount/session.h"
#include "tests/fake/fake-server.h"
#include "tests/unit/fetch/blob-fixture.h"

#define CHUNKS     8u
#define CHUNK_SIZE 40000u

/* Inodes of the view. FILE holds the tar but for its first byte; BEYOND claims to lie after its end. */
enum { ROOT, DIRECTORY, FILE_INODE, SPARSE, LINK, DEVICE, EMPTY, BEYOND, INODES };
#define NODE(inode) ((uint64_t)(inode) + 1)

#define SPARSE_SIZE   UINT64_C(1000000)
#define SPARSE_FIRST  UINT64_C(10000) /* two extents of 5000 bytes, at these offsets */
#define SPARSE_SECOND UINT64_C(900000)
#define SPARSE_LENGTH UINT64_C(5000)
#define MANY          300u /* more names of EMPTY, in DIRECTORY */

typedef struct MountFixture {
	OpsKind kind;
	BlobFixture blob;
	uint8_t *view;
	size_t view_size;
	char *directory; /* of the fake server; NULL: none */
	FakeServer *source;
	MountPlanLayer layer;
	MountPlan plan;
	int journal_fd;
	int kernel; /* the test's end */
	int device; /* the session's */
} MountFixture;

typedef struct MountFixtureOptions {
	OpsKind kind; /* a private mount has the image; those of the daemon have none yet */
	bool xattrs;
	bool absent; /* the cache holds nothing */
	bool source; /* a server has what is absent */
	int64_t deadline;
} MountFixtureOptions;

void mount_fixture_make(MountFixture *fixture, const MountFixtureOptions *options);
void mount_fixture_done(MountFixture *fixture);

/* What runs on it, in this process. */
typedef struct RunningMount {
	MountServer *server;
	Journal *journal;
	ReadPool *pool;
	Ops ops;
	Session *session;
} RunningMount;

/* Adds an image by a plan whose descriptors are copied. */
int mount_fixture_add(MountServer *server, const MountPlan *plan, const MountPlace *place, MountImage **ret_image);

void mount_fixture_start(MountFixture *fixture, RunningMount *running);
void mount_fixture_stop(MountFixture *fixture, RunningMount *running);

/* The same in a child, which the caller kills. */
pid_t mount_fixture_fork(MountFixture *fixture);

/* The thread that requests say they are of; 0: one of another namespace. */
extern uint32_t request_thread;

/* Sends a request of `opcode` with `body`; returns its unique. */
uint64_t request_send(MountFixture *fixture, uint32_t opcode, uint64_t node, const void *body, size_t size);

/* A reply; 10 seconds without one fail the test. */
typedef struct Reply {
	struct fuse_out_header header;
	uint8_t body[150000];
	size_t size; /* of the body */
} Reply;
void reply_receive(MountFixture *fixture, Reply *ret_reply);
bool reply_is_there(MountFixture *fixture, int timeout);

/* Both; checks that the reply is to this request. Returns the reply's error. */
int request(MountFixture *fixture, uint32_t opcode, uint64_t node, const void *body, size_t size, Reply *ret_reply);
int request_read(MountFixture *fixture, uint64_t node, uint64_t offset, uint32_t size, Reply *ret_reply);
uint64_t request_read_send(MountFixture *fixture, uint64_t node, uint64_t offset, uint32_t size);
