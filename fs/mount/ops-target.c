/* From a node number to what it stands for. */
#include "fs/base/log.h"
#include "fs/mount/inode-stat.h"
#include "fs/mount/ops.h"
#include "fs/mount/reply-errno.h"

#define ROOT_NODE 1u

const Ops *ops_of(fuse_req_t request)
{
	return fuse_req_userdata(request);
}

void ops_reply_error(fuse_req_t request, int error)
{
	(void)fuse_reply_err(request, reply_errno_tree(error));
}

/* An image is opened by its first request: those that nobody uses cost a new server nothing. */
int ops_open_image(MountImage *image)
{
	Error error = { 0 };
	int r = mount_image_open(image, &error);
	if (r == 0 || error.code == 0)
		return r; /* it was open, or refused before */
	if (atomic_load(&image->state) == MOUNT_IMAGE_CLOSED) {
		if (!atomic_exchange(&image->told, true))
			log_error("requests are answered with EIO until it can be opened image=%s slot=%u "
				  "reason=\"%s\"",
				  image->plan.source, image->slot, error_text(&error, r));
		return -EIO;
	}
	log_error("every request is answered with EIO image=%s slot=%u reason=\"%s\" "
		  "way_out=\"imgfs umount, then imgfs mount: that makes the damaged file anew\"",
		  image->plan.source, image->slot, error_text(&error, r));
	return -EIO;
}

static int find_inode(MountImage *image, OpsTarget *target)
{
	uint32_t low = (uint32_t)target->node;
	int r = ops_open_image(image);
	if (r < 0)
		return r;
	if (low == 0 || low > image->tree.inode_count)
		return -ESTALE;
	target->number = low - 1;
	tree_inode(&image->tree, target->number, &target->inode);
	return 0;
}

int ops_target(fuse_req_t request, fuse_ino_t node, OpsTarget *ret_target)
{
	const Ops *ops = ops_of(request);
	OpsTarget target = { .node = node };
	if (node == ROOT_NODE && ops->kind != OPS_PRIVATE) {
		ops_root_inode(ops, &target.inode);
		*ret_target = target;
		return 0;
	}
	_cleanup_(mount_image_unref_p) MountImage *image = NULL;
	if (mount_server_get(ops->server, (uint32_t)(node >> 32), &image) < 0)
		return -ESTALE;
	/* A file handle of one mount is none of the other. */
	if (image->xattr != (ops->kind == OPS_XATTR))
		return -ESTALE;
	int r = find_inode(image, &target);
	if (r < 0)
		return r;
	target.image = TAKE_PTR(image);
	*ret_target = target;
	return 0;
}

void ops_target_done(OpsTarget *target)
{
	target->image = mount_image_unref(target->image);
}

void ops_entry(const MountImage *image, uint32_t number, struct fuse_entry_param *ret_entry)
{
	TreeInode inode;
	tree_inode(&image->tree, number, &inode);
	*ret_entry = (struct fuse_entry_param){
		.ino = mount_image_node(image, number),
		.attr_timeout = OPS_FOREVER,
		.entry_timeout = OPS_FOREVER,
	};
	inode_stat(&image->tree, ret_entry->ino, &inode, &ret_entry->attr);
}
