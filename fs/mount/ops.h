/*
 * The FUSE operations. Each gets its MountServer and ReadPool through the session's user data (Ops), runs in a thread with a
 * current Worker, and replies exactly once, or hands the request to the read pool, which does.
 */
#pragma once

#include "fs/mount/fuse-api.h"
#include "fs/mount/listing-hints.h"
#include "fs/mount/mount-server.h"
#include "fs/mount/read-pool.h"

/* Nothing inside an image ever changes, so the kernel may keep all it learns. Far below where its clock would overflow. */
#define OPS_FOREVER 1e9

/* What a connection shows: one image, or the server's images without any xattr, or the others. */
typedef enum OpsKind { OPS_PRIVATE, OPS_PLAIN, OPS_XATTR } OpsKind;

typedef struct Ops {
	OpsKind kind;
	MountServer *server;
	ReadPool *pool;
	Journal *journal;    /* of the connection; the session sets this and the next */
	ListingHints *hints; /* of the connection */
} Ops;

/* The operations, for fuse_session_new(); forgets and interrupts never get there (session.h). */
extern const struct fuse_lowlevel_ops ops_table;

/* Shared by the operations. */
const Ops *ops_of(fuse_req_t request);
void ops_reply_error(fuse_req_t request, int error); /* negative errno of a question to the tree */

/* What a request is about. */
typedef struct OpsTarget {
	MountImage *image; /* a reference; NULL: the root of one of the daemon's mounts */
	uint64_t node;
	uint32_t number; /* of the inode; of no use for that root */
	TreeInode inode;
} OpsTarget;

/* Opens the image if it is not open yet. Errors: -ESTALE (no such node), -EIO (the image is refused). */
int ops_target(fuse_req_t request, fuse_ino_t node, OpsTarget *ret_target) _must_check_;
void ops_target_done(OpsTarget *target); /* safe on a zeroed one */

/* mount_image_open(), with a record in the log when it fails for the first time. */
int ops_open_image(MountImage *image) _must_check_;

void ops_entry(const MountImage *image, uint32_t number, struct fuse_entry_param *ret_entry);

/* ops-root.c: the root of the daemon's mounts, whose entries come and go. */
void ops_root_inode(const Ops *ops, TreeInode *ret_inode);
void ops_root_lookup(fuse_req_t request, const char *name);
void ops_root_entry(const Ops *ops, struct fuse_entry_param *ret_entry);
void ops_root_list(fuse_req_t request, size_t size, off_t offset, bool plus);
void ops_root_statfs(fuse_req_t request);

void ops_lookup(fuse_req_t request, fuse_ino_t parent, const char *name);
void ops_getattr(fuse_req_t request, fuse_ino_t node, struct fuse_file_info *file);
void ops_readlink(fuse_req_t request, fuse_ino_t node);
void ops_statfs(fuse_req_t request, fuse_ino_t node);
void ops_open(fuse_req_t request, fuse_ino_t node, struct fuse_file_info *file);
void ops_read(fuse_req_t request, fuse_ino_t node, size_t size, off_t offset, struct fuse_file_info *file);
void ops_lseek(fuse_req_t request, fuse_ino_t node, off_t offset, int whence, struct fuse_file_info *file);
void ops_readdir(fuse_req_t request, fuse_ino_t node, size_t size, off_t offset, struct fuse_file_info *file);
void ops_readdirplus(fuse_req_t request, fuse_ino_t node, size_t size, off_t offset, struct fuse_file_info *file);
void ops_getxattr(fuse_req_t request, fuse_ino_t node, const char *name, size_t size);
void ops_listxattr(fuse_req_t request, fuse_ino_t node, size_t size);
