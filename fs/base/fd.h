/* File descriptors: whole reads and writes, small files, durable replacement, whole files in memory. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "fs/base/cleanup.h"

/* Reads exactly `size` bytes at `offset`; blocks. Errors: -ENODATA when the file ends first, or read's. */
int fd_pread_all(int fd, void *buffer, size_t size, uint64_t offset) _must_check_;

/* Writes all `size` bytes at `offset`, or at the file position; blocks. Errors: write's. */
int fd_pwrite_all(int fd, const void *data, size_t size, uint64_t offset) _must_check_;
int fd_write_all(int fd, const void *data, size_t size) _must_check_;

/*
 * Reads up to `size` bytes from a stream, fewer only at its end; blocks.
 * Returns the count (0 at the end) or a negative errno.
 */
ssize_t fd_read_full(int fd, void *buffer, size_t size) _must_check_;

/*
 * Reads the whole of `path` below `dirfd` (AT_FDCWD allowed), with a NUL after the last byte that
 * `ret_size` does not count. Errors: -EFBIG above `limit` bytes, or open's and read's.
 */
int fd_read_file(int dirfd, const char *path, size_t limit, char **ret_data, size_t *ret_size) _must_check_;

/*
 * Puts a file in place durably and atomically: temporary beside it, fsync, rename, fsync of the directory.
 * `path` is below `dirfd`; its directory must exist. A crash leaves the old file or the new one, and perhaps
 * a temporary named ".tmp-*" that the owner of the directory may delete.
 */
int fd_replace_file(int dirfd, const char *path, const void *data, size_t size, mode_t mode) _must_check_;

/* As above for a temporary the caller wrote: fsync(fd), rename `temporary` to `path`, fsync of the directory. */
int fd_publish_file(int dirfd, int fd, const char *temporary, const char *path) _must_check_;

/*
 * A file in the directory `path` that has no name, so that nothing is left of it unless fd_give_name() is called; returns its descriptor, the caller's.
 * Errors: -EOPNOTSUPP (not on this file system, or no /proc to name it by), open's.
 */
int fd_open_unnamed(int dirfd, const char *path, mode_t mode) _must_check_;

/* Names it; there must be none of that name. Errors: linkat's. */
int fd_give_name(int fd, int dirfd, const char *path) _must_check_;

/* Creates the directories of `path` that are missing, below `dirfd`, as mkdir -p does. */
int fd_make_directories(int dirfd, const char *path, mode_t mode) _must_check_;

/*
 * Gives standard input, output and error a descriptor each where the caller has closed one, so that none of the program's own files gets its
 * number, and with it what is printed. Reads and writes fail as they would have
 * failed. To be called first of all.
 */
void fd_open_standard(void);

/* A whole file mapped read-only and shared. Empty files map to data == NULL, size == 0. */
typedef struct FdMap {
	const uint8_t *data;
	size_t size;
} FdMap;

int fd_map(int fd, FdMap *ret_map) _must_check_;

/*
 * As fd_map(), but the bytes are read into memory of the process's own, not writable: what was checked of them stays true, whatever
 * becomes of the file, and a bad sector is an error here and no SIGBUS later. Errors: mmap's, -ENODATA when the file shrinks
 * meanwhile, or read's.
 */
int fd_load(int fd, FdMap *ret_map) _must_check_;

/*
 * The same in parts: first memory for the whole file, all zeros, which takes room only where something is read into it; then any parts, inside the
 * file, any number of times. The memory may be written until fd_load_end(). Errors: as above, -EINVAL.
 */
int fd_load_begin(int fd, FdMap *ret_map) _must_check_;
int fd_load_part(int fd, FdMap *map, size_t offset, size_t size) _must_check_;
int fd_load_end(FdMap *map) _must_check_;

/* Gives back what is behind the first `size` bytes (at most map->size), to the page. */
void fd_shrink(FdMap *map, size_t size);
void fd_unmap(FdMap *map); /* safe on a zeroed FdMap */
