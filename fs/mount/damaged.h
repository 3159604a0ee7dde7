/*
 * What a server does whose view or index is damaged: truncated or rotten on the disk since the mount. Its predecessor has likely died of
 * that (a mapped file that was cut short gives SIGBUS), and so would every successor, with readers waiting all the while. It answers
 * everything with EIO instead, until the mount is gone; a new mount builds or fetches the file again.
 */
#pragma once

#include "fs/base/cleanup.h"
#include "fs/mount/journal.h"

/* Is this how a damaged file shows when a server opens what it serves (mount_server_open())? */
bool damaged_is(int code);

/*
 * Answers what the predecessors left behind and all that comes, in the calling thread, until the file system is unmounted. Errors: what
 * read() of the FUSE descriptor said.
 */
int damaged_serve(int fuse_fd, Journal *journal) _must_check_;
