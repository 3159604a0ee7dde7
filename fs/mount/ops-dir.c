/* Directories. Offset 1 comes after ".", 2 after "..", N + 3 after entry N: they never change. */
#include <string.h>

#include "fs/mount/ops.h"
#include "fs/mount/worker.h"

typedef struct Listing {
	fuse_req_t request;
	const MountImage *image;
	const OpsTarget *directory;
	char *buffer;
	size_t size;
	size_t used;
	bool plus;
	bool names; /* alone, but for directories, in which who lists will be next */
} Listing;

/* The kernel takes "." and ".." of readdirplus, and what has no node, for names alone: no lookup is counted. */
static size_t add_dots(Listing *listing, uint64_t offset)
{
	const char *name = offset == 0 ? "." : "..";
	const OpsTarget *directory = listing->directory;
	uint32_t number = offset == 0 ? directory->number : directory->inode.parent;
	uint64_t node = mount_image_node(listing->image, number);
	if (offset == 1 && directory->number == 0)
		node = 1; /* the root of the mount, or in it */
	struct fuse_entry_param entry = { .attr = { .st_ino = node, .st_mode = S_IFDIR } };
	char *at = listing->buffer + listing->used;
	size_t left = listing->size - listing->used;
	off_t next = (off_t)offset + 1;
	if (listing->plus)
		return fuse_add_direntry_plus(listing->request, at, left, name, &entry, next);
	return fuse_add_direntry(listing->request, at, left, name, &entry.attr, next);
}

static size_t add_entry(Listing *listing, uint64_t offset)
{
	TreeDirent dirent;
	tree_dirent(&listing->image->tree, listing->directory->inode.data + (offset - 2), &dirent);
	char name[FORMAT_NAME_MAX + 1];
	memcpy(name, dirent.name.data, dirent.name.size);
	name[dirent.name.size] = '\0';

	char *at = listing->buffer + listing->used;
	size_t left = listing->size - listing->used;
	off_t next = (off_t)offset + 1;
	struct stat st = {
		.st_ino = mount_image_node(listing->image, dirent.inode),
		.st_mode = (mode_t)DTTOIF(dirent.type),
	};
	if (listing->plus && listing->names && dirent.type != DT_DIR) {
		const struct fuse_entry_param entry = { .attr = st };
		return fuse_add_direntry_plus(listing->request, at, left, name, &entry, next);
	}
	if (listing->plus) {
		struct fuse_entry_param entry;
		ops_entry(listing->image, dirent.inode, &entry);
		return fuse_add_direntry_plus(listing->request, at, left, name, &entry, next);
	}
	return fuse_add_direntry(listing->request, at, left, name, &st, next);
}

static void list(fuse_req_t request, fuse_ino_t node, size_t size, off_t offset, bool plus)
{
	_cleanup_(ops_target_done) OpsTarget directory = { 0 };
	int r = ops_target(request, node, &directory);
	if (r == 0 && !S_ISDIR(directory.inode.mode))
		r = -ENOTDIR;
	if (r == 0 && offset < 0)
		r = -EINVAL;
	if (r < 0) {
		ops_reply_error(request, r);
		return;
	}
	if (!directory.image) {
		ops_root_list(request, size, offset, plus);
		return;
	}
	size_t room = size < WORKER_BUFFER_SIZE ? size : WORKER_BUFFER_SIZE;
	Listing listing = {
		.request = request,
		.image = directory.image,
		.directory = &directory,
		.buffer = (char *)worker_buffer(worker_current(), room),
		.size = room,
		.plus = plus,
		.names = plus &&
			 !listing_hints_wants_attributes(ops_of(request)->hints, fuse_req_ctx(request)->pid, node),
	};
	uint64_t end = (uint64_t)directory.inode.count + 2;
	for (uint64_t at = (uint64_t)offset; at < end; at++) {
		size_t needed = at < 2 ? add_dots(&listing, at) : add_entry(&listing, at);
		if (needed > listing.size - listing.used)
			break;
		listing.used += needed;
	}
	(void)fuse_reply_buf(request, listing.buffer, listing.used);
}

void ops_readdir(fuse_req_t request, fuse_ino_t node, size_t size, off_t offset, _unused_ struct fuse_file_info *file)
{
	list(request, node, size, offset, false);
}

void ops_readdirplus(fuse_req_t request, fuse_ino_t node, size_t size, off_t offset,
		     _unused_ struct fuse_file_info *file)
{
	list(request, node, size, offset, true);
}
