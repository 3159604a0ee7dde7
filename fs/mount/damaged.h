/*
 * What a server does whose view or index is damaged: truncated or rotten on the disk since its predecessor read
 * them. It answers everything with EIO, so that no reader waits for a server that can never come, until the mount is gone; a new
 * mount builds or fetches the file again.
 */
#pragma once

#include "fs/base/cleanup.h"
#include "fs/mount/journal.h"

/*
 * Answers what the predecessors left behind and all that comes, in the calling thread, until the file system is unmounted. Errors: what
 * read() of the FUSE descriptor said.
 */
int damaged_serve(int fuse_fd, Journal *journal) _must_check_;
