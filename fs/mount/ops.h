/*
 * The FUSE operations. Each gets its MountServer and ReadPool through the session's user data (Ops), runs in a thread with a
 * current Worker, and replies exactly once, or hands the request to the read pool, which does.
 */
#pragma once

#include "fs/mount/fuse-api.h"
#include "fs/mount/mount-server.h"
#include "fs/mount/read-pool.h"

/* Nothing ever changes, so the kernel may keep all it learns. Far below where its clock would overflow. */
#define OPS_FOREVER 1e9

typedef struct Ops {
	MountServer *server;
	ReadPool *pool;
} Ops;

/* The operations, for fuse_session_new(); forgets and interrupts never get there (session.h). */
extern const struct fuse_lowlevel_ops ops_table;

/* Shared by the operations. */
const Ops *ops_of(fuse_req_t request);
int ops_inode(const Tree *tree, fuse_ino_t node, uint32_t *ret_number, TreeInode *ret_inode) _must_check_;
void ops_entry(const Tree *tree, uint32_t number, struct fuse_entry_param *ret_entry);
void ops_reply_error(fuse_req_t request, int error); /* negative errno of a question to the tree */

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
