/* The keeper: one thread at a time speaks to it, and another one is found when it is gone. */
#include <errno.h>
#include <string.h>

#include "fs/base/deadline.h"
#include "fs/node/node-private.h"

#define PATIENCE_SECONDS 60

int node_keeper_open(Node *node, Error *error)
{
	DaemonMountsOptions options = {
		.runtime = node->options.runtime,
		.read_ahead_kb = node->options.read_ahead_kb,
		.log_path = node->options.log_path,
		.start = node->options.start_keeper,
	};
	DaemonMounts *mounts;
	int r = daemon_mounts_open(&options, &mounts, error);
	if (r < 0)
		return r;
	node_lock(node);
	node->mounts = mounts;
	node->lost = false;
	node_changed(node);
	node_unlock(node);
	node_wake(node); /* there is something new to poll */
	return 0;
}

int node_keeper_take(Node *node, DaemonMounts **ret_mounts, Error *error)
{
	struct timespec until = deadline_in((int64_t)PATIENCE_SECONDS * 1000);
	int r = 0;
	node_lock(node);
	while (r == 0 && !node->ending && (!node->mounts || node->lost || node->mounts_taken))
		r = -pthread_cond_timedwait(&node->changed, &node->mutex, &until);
	if (r == 0 && (!node->mounts || node->lost || node->mounts_taken))
		r = -ECANCELED;
	if (r == 0) {
		node->mounts_taken = true;
		*ret_mounts = node->mounts;
	}
	node_unlock(node);
	return r < 0 ? error_set(error, r,
				 "the keeper of the images' mounts does not answer; the log of imgfsd says why")
		     : 0;
}

void node_keeper_give(Node *node, int result)
{
	node_lock(node);
	node->mounts_taken = false;
	node->lost |= result == -EPIPE;
	node_changed(node);
	node_unlock(node);
	if (result == -EPIPE)
		node_wake(node);
}

int node_keeper_fd(Node *node)
{
	node_lock(node);
	int fd = node->mounts && !node->lost ? daemon_mounts_fd(node->mounts) : -1;
	node_unlock(node);
	return fd;
}

void node_keeper_drop(Node *node)
{
	node_lock(node);
	while (node->mounts_taken)
		(void)pthread_cond_wait(&node->changed, &node->mutex);
	DaemonMounts *mounts = TAKE_PTR(node->mounts);
	node->generation++;
	for (NodeImage *image = node->images; image; image = image->next)
		if (image->state == NODE_IMAGE_HERE)
			image->state = NODE_IMAGE_AWAY;
	node_unlock(node);
	(void)daemon_mounts_close(mounts);
}
