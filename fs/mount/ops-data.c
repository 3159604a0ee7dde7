/* The bytes of files. */
#include <string.h>

#include "fs/mount/ops.h"
#include "fs/mount/worker.h"

/* open and opendir: the kernel remembers the ENOSYS and opens by itself from then on (FUSE_NO_OPEN_SUPPORT). */
void ops_open(fuse_req_t request, _unused_ fuse_ino_t node, _unused_ struct fuse_file_info *file)
{
	ops_reply_error(request, -ENOSYS);
}

static int regular(fuse_req_t request, fuse_ino_t node, OpsTarget *ret_target)
{
	int r = ops_target(request, node, ret_target);
	if (r < 0)
		return r;
	if (S_ISDIR(ret_target->inode.mode))
		return -EISDIR;
	return S_ISREG(ret_target->inode.mode) ? 0 : -EINVAL;
}

/* Who reads is looked up before the answer: until then the reader is there. */
static void note_read(const TreeInode *inode, bool waits, ReadRequest *what)
{
	MountChunks chunks;
	if ((waits || start_recorder_is_on(what->image->recorder)) &&
	    mount_image_chunks(what->image, inode, what->offset, what->size, &chunks))
		start_recorder_touch(what->image->recorder, chunks.layer, chunks.first, chunks.count,
				     (uint32_t)fuse_req_ctx(what->request)->pid, waits, &what->trace);
}

void ops_read(fuse_req_t request, fuse_ino_t node, size_t size, off_t offset, _unused_ struct fuse_file_info *file)
{
	const Ops *ops = ops_of(request);
	Worker *worker = worker_current();
	_cleanup_(ops_target_done) OpsTarget target = { 0 };
	int r = regular(request, node, &target);
	/* The mount's max_read keeps the kernel from asking for more than a buffer holds; less than asked for would be wrong bytes. */
	if (r == 0 && (offset < 0 || size > WORKER_BUFFER_SIZE))
		r = -EINVAL;
	if (r < 0) {
		ops_reply_error(request, r);
		return;
	}
	MountMissing missing;
	ReadRequest what = {
		.request = request,
		.journal = ops->journal,
		.image = target.image,
		.inode = target.number,
		.offset = (uint64_t)offset,
		.size = mount_image_read_size(&target.inode, (uint64_t)offset, (uint32_t)size),
		.began = shared_memory_clock(),
	};
	uint8_t *buffer = worker_buffer(worker, what.size);
	*fetch_reader_tally(worker->reader) = (FetchTally){ 0 };
	r = mount_image_read(target.image, worker->reader, &target.inode, what.offset, what.size, buffer, &missing);
	note_read(&target.inode, r == -EAGAIN, &what);
	if (r == -EAGAIN) {
		read_pool_add(ops->pool, &what, &missing);
		return;
	}
	FetchTally tally = *fetch_reader_tally(worker->reader);
	tally.absent = 0; /* what lacked was found elsewhere */
	tally.absent_bytes = 0;
	if (r == 0)
		(void)fuse_reply_buf(request, (const char *)buffer, what.size);
	else
		read_pool_fail(ops->pool, &what, r);
	read_request_answered(ops->pool, &what, &tally, r);
}

/* Where data (or a hole) begins at `offset` or after it, as lseek(2) says; the end of a file is a hole. */
static int seek(const Tree *tree, const TreeInode *inode, uint64_t offset, bool data, uint64_t *ret_offset)
{
	if (offset >= inode->size)
		return -ENXIO;
	if (!(inode->flags & TREE_SPARSE)) {
		*ret_offset = data ? offset : inode->size;
		return 0;
	}
	for (uint32_t i = 0; i < inode->count; i++) {
		TreeExtent extent;
		tree_extent(tree, inode, i, &extent);
		if (offset >= extent.file_offset + extent.length)
			continue;
		if (data) {
			*ret_offset = offset > extent.file_offset ? offset : extent.file_offset;
			return 0;
		}
		if (offset < extent.file_offset)
			break;
		offset = extent.file_offset + extent.length;
	}
	if (data)
		return -ENXIO;
	*ret_offset = offset;
	return 0;
}

void ops_lseek(fuse_req_t request, fuse_ino_t node, off_t offset, int whence, _unused_ struct fuse_file_info *file)
{
	_cleanup_(ops_target_done) OpsTarget target = { 0 };
	uint64_t found = 0;
	int r = regular(request, node, &target);
	if (r == 0 && (offset < 0 || (whence != SEEK_DATA && whence != SEEK_HOLE)))
		r = -EINVAL;
	if (r == 0)
		r = seek(&target.image->tree, &target.inode, (uint64_t)offset, whence == SEEK_DATA, &found);
	if (r < 0)
		ops_reply_error(request, r);
	else
		(void)fuse_reply_lseek(request, (off_t)found);
}
