#include "fs/mount/mount-server.h"

#include <string.h>
#include <time.h>

struct MountServer {
	ServerMetrics *metrics;
	LoginBoxes *logins; /* NULL: there are none */
	MountSources *sources;
	pthread_mutex_t lock; /* of what follows */
	MountImage **images;  /* by ascending slot */
	size_t count;
	size_t room;
	MountRoot roots[2]; /* plain, xattr */
};

/* The kernel compares the times of a directory to know whether what it has listed is still true. */
static void note_change(MountServer *server, bool xattr, int by)
{
	MountRoot *root = &server->roots[xattr];
	struct timespec now;
	(void)clock_gettime(CLOCK_REALTIME, &now);
	root->count += (uint32_t)by;
	if (now.tv_sec < root->changed.tv_sec ||
	    (now.tv_sec == root->changed.tv_sec && now.tv_nsec <= root->changed.tv_nsec)) {
		now = root->changed;
		now.tv_nsec++;
		if (now.tv_nsec == 1000000000L)
			now = (struct timespec){ .tv_sec = now.tv_sec + 1 };
	}
	root->changed = now;
}

int mount_server_new(int metrics_fd, MountServer **ret_server)
{
	_cleanup_(mount_server_free_p) MountServer *server = calloc(1, sizeof(*server));
	if (!server)
		return -ENOMEM;
	(void)pthread_mutex_init(&server->lock, NULL);
	note_change(server, false, 0);
	note_change(server, true, 0);
	int r = server_metrics_open(metrics_fd, &server->metrics);
	if (r == 0 && metrics_fd > 0 && login_box_open(metrics_fd, &server->logins) < 0)
		server->logins = NULL;
	if (r == 0)
		r = mount_sources_new(&server->metrics->fetch, server->logins, &server->sources);
	if (r < 0)
		return r;
	(void)atomic_fetch_add(&server->metrics->servers, 1);
	*ret_server = TAKE_PTR(server);
	return 0;
}

ServerMetrics *mount_server_metrics(MountServer *server)
{
	return server->metrics;
}

void mount_server_stop(MountServer *server)
{
	mount_sources_stop(server->sources);
}

MountServer *mount_server_free(MountServer *server)
{
	if (!server)
		return NULL;
	for (size_t i = 0; i < server->count; i++)
		(void)mount_image_unref(server->images[i]);
	free(server->images);
	(void)mount_sources_free(server->sources);
	login_box_close(server->logins);
	server_metrics_close(server->metrics);
	(void)pthread_mutex_destroy(&server->lock);
	free(server);
	return NULL;
}

/* Where the image with the lowest slot not below `slot` is. Under the lock, as what follows. */
static size_t position_of(const MountServer *server, uint32_t slot)
{
	size_t low = 0, high = server->count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (server->images[middle]->slot < slot)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static MountImage *image_named(const MountServer *server, bool xattr, const char *name)
{
	for (size_t i = 0; i < server->count; i++) {
		MountImage *image = server->images[i];
		if (image->xattr == xattr && strcmp(image->name, name) == 0)
			return image;
	}
	return NULL;
}

static int insert(MountServer *server, MountImage *image)
{
	size_t at = position_of(server, image->slot);
	if ((at < server->count && server->images[at]->slot == image->slot) ||
	    image_named(server, image->xattr, image->name))
		return -EEXIST;
	if (server->count == server->room) {
		size_t room = server->room ? 2 * server->room : 16;
		MountImage **larger = reallocarray(server->images, room, sizeof(MountImage *));
		if (!larger)
			return -ENOMEM;
		server->images = larger;
		server->room = room;
	}
	memmove(&server->images[at + 1], &server->images[at], (server->count - at) * sizeof(MountImage *));
	server->images[at] = image;
	server->count++;
	note_change(server, image->xattr, 1);
	return 0;
}

int mount_server_add(MountServer *server, const MountPlace *place, MountPlan *plan, MountImage **ret_image)
{
	_cleanup_(mount_image_unref_p) MountImage *image = NULL;
	int r = mount_image_new(server->sources, place, plan, &image);
	if (r < 0)
		return r;
	if (ret_image)
		mount_image_ref(image);
	(void)pthread_mutex_lock(&server->lock);
	r = insert(server, image);
	(void)pthread_mutex_unlock(&server->lock);
	if (r < 0) {
		if (ret_image)
			(void)mount_image_unref(image);
		return r;
	}
	if (ret_image)
		*ret_image = image;
	image = NULL;
	return 0;
}

int mount_server_remove(MountServer *server, uint32_t slot)
{
	MountImage *image = NULL;
	(void)pthread_mutex_lock(&server->lock);
	size_t at = position_of(server, slot);
	if (at < server->count && server->images[at]->slot == slot) {
		image = server->images[at];
		server->count--;
		memmove(&server->images[at], &server->images[at + 1], (server->count - at) * sizeof(MountImage *));
		note_change(server, image->xattr, -1);
	}
	(void)pthread_mutex_unlock(&server->lock);
	if (!image)
		return -ENOENT;
	(void)mount_image_unref(image);
	return 0;
}

int mount_server_get(MountServer *server, uint32_t slot, MountImage **ret_image)
{
	MountImage *image = NULL;
	(void)pthread_mutex_lock(&server->lock);
	size_t at = position_of(server, slot);
	if (at < server->count && server->images[at]->slot == slot) {
		image = server->images[at];
		mount_image_ref(image);
	}
	(void)pthread_mutex_unlock(&server->lock);
	if (!image)
		return -ENOENT;
	*ret_image = image;
	return 0;
}

int mount_server_find(MountServer *server, bool xattr, const char *name, MountImage **ret_image)
{
	(void)pthread_mutex_lock(&server->lock);
	MountImage *image = image_named(server, xattr, name);
	if (image)
		mount_image_ref(image);
	(void)pthread_mutex_unlock(&server->lock);
	if (!image)
		return -ENOENT;
	*ret_image = image;
	return 0;
}

int mount_server_next(MountServer *server, bool xattr, uint32_t slot, MountImage **ret_image)
{
	MountImage *image = NULL;
	(void)pthread_mutex_lock(&server->lock);
	for (size_t at = position_of(server, slot + 1); !image && at < server->count; at++) {
		if (server->images[at]->xattr == xattr)
			image = server->images[at];
	}
	if (image)
		mount_image_ref(image);
	(void)pthread_mutex_unlock(&server->lock);
	if (!image)
		return -ENOENT;
	*ret_image = image;
	return 0;
}

void mount_server_root(MountServer *server, bool xattr, MountRoot *ret_root)
{
	(void)pthread_mutex_lock(&server->lock);
	*ret_root = server->roots[xattr];
	(void)pthread_mutex_unlock(&server->lock);
}
