/*
 * The one place where errors become FUSE replies. The kernel and programs draw conclusions from an errno (ENOENT is cached
 * for ever, ENOSYS switches an operation off), so only those meant get through; whatever else went wrong is EIO.
 */
#pragma once

/* The errno to reply when the tree was asked for a name, an attribute or a position in it. `error` is a negative errno. */
int reply_errno_tree(int error);

/* The errno to reply when the bytes of a file could not be had: EIO, or EINTR for a reader that is being killed. */
int reply_errno_data(int error);
