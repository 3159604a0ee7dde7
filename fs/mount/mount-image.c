#include "fs/mount/mount-image.h"

#include <string.h>

#include "fs/mount/mount-profile.h"

int mount_image_new(MountSources *sources, const MountPlace *place, MountPlan *plan, MountImage **ret_image)
{
	MountImage *image = calloc(1, sizeof(*image));
	if (!image) {
		mount_plan_close(plan);
		mount_plan_done(plan);
		return -ENOMEM;
	}
	image->slot = place->slot;
	image->xattr = place->xattr;
	(void)snprintf(image->name, sizeof(image->name), "%s", place->name);
	image->sources = sources;
	atomic_init(&image->references, 1);
	(void)pthread_mutex_init(&image->opening, NULL);
	image->plan = *plan;
	*plan = (MountPlan)MOUNT_PLAN_NULL;
	*ret_image = image;
	return 0;
}

void mount_image_ref(MountImage *image)
{
	(void)atomic_fetch_add(&image->references, 1);
}

static void close_layers(MountImage *image)
{
	for (size_t i = 0; i < image->layer_count; i++)
		mount_layer_put(image->layers[i]);
	free(image->layers);
	image->layers = NULL;
	image->layer_count = 0;
	mount_source_put(image->source);
	image->source = NULL;
	mount_sources_unlimit_fill(image->sources, image->fill_rate);
	image->fill_rate = 0;
	image->recorder = start_recorder_free(image->recorder);
	fd_unmap(&image->view_map);
}

MountImage *mount_image_unref(MountImage *image)
{
	if (!image || atomic_fetch_sub(&image->references, 1) > 1)
		return NULL;
	close_layers(image);
	mount_plan_close(&image->plan);
	mount_plan_done(&image->plan);
	(void)pthread_mutex_destroy(&image->opening);
	free(image);
	return NULL;
}

static int check_view(MountImage *image, Error *error)
{
	int r = image_open(image->view_map.data, image->view_map.size, &image->view, error);
	if (r == 0 && image->view.header.kind != FORMAT_KIND_VIEW)
		r = error_set(error, -EBADMSG, "it is not a view");
	if (r == 0)
		r = tree_open(&image->view, &image->tree, error);
	if (r == 0 && image->tree.layer_count != image->plan.layer_count)
		r = error_set(error, -EBADMSG, "it has %u layers, the image %zu", image->tree.layer_count,
			      image->plan.layer_count);
	return r;
}

/* Whatever is wrong with a view that was sound when the image was mounted, but for memory that lacks. */
static int open_view(MountImage *image, Error *error)
{
	int r = fd_load(image->plan.view_fd, &image->view_map);
	if (r < 0)
		(void)error_set(error, r, "cannot read it: %s", strerror(-r));
	else
		r = check_view(image, error);
	if (r == 0)
		return 0;
	(void)error_prefix(error, r, "view of %s", image->plan.source);
	return r == -ENOMEM ? r : -EUCLEAN;
}

static int open_layers(MountImage *image, FetchDonors *donors, Error *error)
{
	MountPlan *plan = &image->plan;
	image->layers = calloc(plan->layer_count + 1, sizeof(*image->layers));
	if (!image->layers)
		return error_set(error, -ENOMEM, "out of memory");
	for (size_t i = 0; i < plan->layer_count; i++) {
		Digest diff_id;
		tree_layer(&image->tree, (uint32_t)i, &diff_id);
		int r = mount_layer_get(image->source, &plan->layers[i], &diff_id, donors, &image->layers[i], error);
		if (r < 0)
			return error_prefix(error, r, "layer %zu of %s", i, plan->source);
		image->layer_count++;
	}
	return 0;
}

static int open_donors(MountPlan *plan, FetchDonors **ret_donors, Error *error)
{
	int r = fetch_donors_new(plan->donor_fds, plan->donor_count, ret_donors);
	if (r < 0)
		return error_set(error, r, "out of memory");
	plan->donor_count = 0; /* they are the object's */
	return 0;
}

static int open_recorder(MountImage *image, Error *error)
{
	_cleanup_free_ uint32_t *counts = calloc(image->layer_count + 1, sizeof(*counts));
	for (size_t i = 0; counts && i < image->layer_count; i++)
		counts[i] = image->layers[i]->chunks.count;
	int r = counts ? start_recorder_new(image->plan.record_fd, counts, image->layer_count, &image->recorder)
		       : -ENOMEM;
	return r < 0 ? error_set(error, r, "out of memory") : 0;
}

static int open_all(MountImage *image, Error *error)
{
	_cleanup_(fetch_donors_unref_p) FetchDonors *donors = NULL;
	image->deadline = image->plan.deadline;
	image->image_size = image->plan.image_size;
	int r = open_view(image, error);
	if (r < 0)
		return r;
	image->has_xattrs = image->tree.xattr_set_count > 0;
	r = mount_source_get(image->sources, image->plan.access, &image->source);
	if (r < 0)
		return error_set(error, r, "cannot prepare fetching: %s", strerror(-r));
	if (mount_sources_limit_fill(image->sources, image->plan.fill_rate) < 0)
		return error_set(error, -ENOMEM, "out of memory");
	image->fill_rate = image->plan.fill_rate;
	r = open_donors(&image->plan, &donors, error);
	if (r == 0)
		r = open_layers(image, donors, error);
	if (r == 0)
		r = open_recorder(image, error);
	if (r == 0 && mount_profile_replay(image) < 0)
		r = error_set(error, -ENOMEM, "out of memory");
	return r;
}

/*
 * Did it fail for want of what there may be later, memory, descriptors or threads? The descriptors of a layer are gone with the attempt to open it; before
 * the first one it can be repeated.
 */
static bool can_repeat(const MountImage *image, int error)
{
	return (error_is_shortage(error) || error == -EAGAIN) && image->plan.layer_count > 0 &&
	       image->plan.layers[0].index_fd >= 0;
}

int mount_image_open(MountImage *image, Error *error)
{
	int state = atomic_load_explicit(&image->state, memory_order_acquire);
	if (state != MOUNT_IMAGE_CLOSED)
		return state == MOUNT_IMAGE_OPEN ? 0 : -EIO;
	(void)pthread_mutex_lock(&image->opening);
	state = atomic_load_explicit(&image->state, memory_order_acquire);
	int r = state == MOUNT_IMAGE_REFUSED ? -EIO : 0;
	if (state == MOUNT_IMAGE_CLOSED) {
		r = open_all(image, error);
		if (r < 0)
			close_layers(image);
		bool repeat = can_repeat(image, r);
		if (!repeat)
			mount_plan_close(&image->plan);
		state = r == 0 ? MOUNT_IMAGE_OPEN : repeat ? MOUNT_IMAGE_CLOSED : MOUNT_IMAGE_REFUSED;
		atomic_store_explicit(&image->state, state, memory_order_release);
	}
	(void)pthread_mutex_unlock(&image->opening);
	return r;
}

void mount_image_refuse(MountImage *image)
{
	(void)pthread_mutex_lock(&image->opening);
	atomic_store_explicit(&image->state, MOUNT_IMAGE_REFUSED, memory_order_release);
	(void)pthread_mutex_unlock(&image->opening);
}
