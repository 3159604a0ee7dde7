#include "fs/mount/mount-plan.h"

#include <fcntl.h>
#include <jansson.h>
#include <string.h>
#include <sys/mman.h>

#include "fs/base/fd.h"
#include "fs/cache/cache-decoded.h"
#include "fs/format/image.h"
#include "fs/mount/start-record.h"

static void json_decref_p(json_t **value)
{
	json_decref(*value);
}

void mount_plan_done(MountPlan *plan)
{
	for (size_t i = 0; plan->layers && i < plan->layer_count; i++)
		free(plan->layers[i].url);
	free(plan->layers);
	free(plan->donor_fds);
	free(plan->source);
	free(plan->access);
	free(plan->manifest);
	free(plan->config);
	*plan = (MountPlan)MOUNT_PLAN_NULL;
}

static int copy_layers(const FetchImage *image, MountPlan *plan)
{
	for (; plan->layer_count < image->layer_count; plan->layer_count++) {
		const FetchLayerFiles *files = &image->layers[plan->layer_count];
		plan->layers[plan->layer_count] = (MountPlanLayer){
			.index_fd = files->index_fd,
			.data_fd = files->data_fd,
			.present_fd = files->present_fd,
			.decoded_fd = files->decoded_fd,
			.seal_fd = files->seal_fd,
			.twins_fd = files->twins_fd,
			.url = files->url ? strdup(files->url) : NULL,
		};
		if (files->url && !plan->layers[plan->layer_count].url)
			return -ENOMEM;
	}
	return 0;
}

int mount_plan_from_image(const FetchImage *image, const char *source, int64_t deadline, MountPlan *ret_plan)
{
	char manifest[DIGEST_TEXT_SIZE], config[DIGEST_TEXT_SIZE];
	_cleanup_(mount_plan_done) MountPlan plan = {
		.deadline = deadline,
		.image_size = image->image_size,
		.view_fd = image->view_fd,
		.record_fd = -1,
		.metrics_fd = -1,
		.profile_fd = image->profile_fd,
		.cache_fd = -1,
		.source = strdup(source),
		.access = image->access ? strdup(image->access) : NULL,
		.manifest = strdup(digest_text(&image->manifest, manifest)),
		.config = strdup(digest_text(&image->config, config)),
		.donor_fds = calloc(image->donor_count + 1, sizeof(int)),
		.layers = calloc(image->layer_count + 1, sizeof(MountPlanLayer)),
	};
	if (!plan.source || !plan.manifest || !plan.config || (image->access && !plan.access) || !plan.donor_fds ||
	    !plan.layers || copy_layers(image, &plan) < 0)
		return -ENOMEM;
	for (; plan.donor_count < image->donor_count; plan.donor_count++)
		plan.donor_fds[plan.donor_count] = image->donor_fds[plan.donor_count];
	*ret_plan = plan;
	plan = (MountPlan)MOUNT_PLAN_NULL;
	return 0;
}

/* A store's own blobs take nothing of the cache. */
static bool is_fetched(const MountPlan *plan)
{
	for (size_t i = 0; i < plan->layer_count; i++)
		if (plan->layers[i].url && plan->layers[i].present_fd >= 0)
			return true;
	return false;
}

/* Can the cache hold all of the image, and its decoded copies? What is filled beyond a quota would only be evicted again. */
static bool has_room(const FetchImage *image, bool decoded, uint64_t quota)
{
	uint64_t bytes = decoded ? image->image_size : 0;
	for (size_t i = 0; i < image->layer_count; i++)
		bytes += image->layers[i].layer.index_offset;
	return quota == 0 || bytes < quota - quota / 8;
}

void mount_plan_use(MountPlan *plan, const FetchImage *image, const MountPlanUse *use)
{
	plan->fill_rate = use->fill_rate;
	bool no_fill = use->no_fill || !has_room(image, false, use->quota);
	bool no_places = no_fill || !has_room(image, true, use->quota);
	for (size_t i = 0; i < plan->layer_count; i++) {
		MountPlanLayer *layer = &plan->layers[i];
		if (no_fill)
			layer->seal_fd = -1;
		if (no_places && layer->decoded_fd >= 0 && cache_decoded_is_place(layer->decoded_fd))
			layer->decoded_fd = -1;
	}
	if (use->cache && is_fetched(plan)) {
		plan->cache_fd = cache_store_fd(use->cache);
		plan->quota = use->quota;
	}
}

int mount_plan_has_xattrs(const FetchImage *image, bool *ret_has, Error *error)
{
	FdMap map = { 0 };
	Image view;
	int r = fd_map(image->view_fd, &map);
	if (r < 0)
		return error_set(error, r, "cannot read the view of the image: %s", strerror(-r));
	r = image_peek(map.data, map.size, &view, error);
	if (r == 0)
		*ret_has = view.sections[FORMAT_SECTION_XATTR_SETS].size > 0;
	fd_unmap(&map);
	return r;
}

static int each_of_layer(MountPlanLayer *layer, MountPlanEach *each, void *arg)
{
	int *const fds[] = { &layer->index_fd,   &layer->data_fd, &layer->present_fd,
			     &layer->decoded_fd, &layer->seal_fd, &layer->twins_fd };
	for (size_t i = 0; i < ELEMENTS(fds); i++) {
		int r = *fds[i] >= 0 ? each(arg, fds[i]) : 0;
		if (r < 0)
			return r;
	}
	return 0;
}

int mount_plan_each(MountPlan *plan, MountPlanEach *each, void *arg)
{
	int *const fds[] = { &plan->view_fd, &plan->record_fd, &plan->metrics_fd, &plan->profile_fd, &plan->cache_fd };
	int r = 0;
	for (size_t i = 0; r == 0 && i < ELEMENTS(fds); i++)
		r = *fds[i] >= 0 ? each(arg, fds[i]) : 0;
	for (size_t i = 0; r == 0 && i < plan->layer_count; i++)
		r = each_of_layer(&plan->layers[i], each, arg);
	for (size_t i = 0; r == 0 && i < plan->donor_count; i++)
		r = plan->donor_fds[i] >= 0 ? each(arg, &plan->donor_fds[i]) : 0;
	return r;
}

static int close_one(_unused_ void *arg, int *fd)
{
	(void)close(TAKE_FD(*fd));
	return 0;
}

void mount_plan_close(MountPlan *plan)
{
	_unused_ int r = mount_plan_each(plan, close_one, NULL);
}

static json_t *encode_layers(const MountPlan *plan)
{
	json_t *layers = json_array();
	for (size_t i = 0; layers && i < plan->layer_count; i++) {
		const MountPlanLayer *layer = &plan->layers[i];
		json_t *object = json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:s?}", "index", layer->index_fd, "data",
					   layer->data_fd, "present", layer->present_fd, "decoded", layer->decoded_fd,
					   "seal", layer->seal_fd, "twins", layer->twins_fd, "url", layer->url);
		if (json_array_append_new(layers, object) < 0) {
			json_decref(layers);
			return NULL;
		}
	}
	return layers;
}

static json_t *encode_donors(const MountPlan *plan)
{
	json_t *donors = json_array();
	for (size_t i = 0; donors && i < plan->donor_count; i++) {
		if (json_array_append_new(donors, json_integer(plan->donor_fds[i])) < 0) {
			json_decref(donors);
			return NULL;
		}
	}
	return donors;
}

/* Only where there is a janitor to be. */
static int encode_cache(const MountPlan *plan, json_t *root)
{
	if (plan->cache_fd <= 0)
		return 0;
	return json_object_set_new(root, "cache", json_integer(plan->cache_fd)) < 0 ||
			       json_object_set_new(root, "quota", json_integer((json_int_t)plan->quota)) < 0
		       ? -ENOMEM
		       : 0;
}

static int decode_cache(const json_t *root, MountPlan *plan)
{
	const json_t *cache = json_object_get(root, "cache"), *quota = json_object_get(root, "quota");
	if (!cache)
		return 0;
	if (json_integer_value(cache) <= 0 || json_integer_value(cache) > INT32_MAX || json_integer_value(quota) < 0)
		return -EBADMSG;
	plan->cache_fd = (int)json_integer_value(cache);
	plan->quota = (uint64_t)json_integer_value(quota);
	return 0;
}

int mount_plan_encode(const MountPlan *plan, char **ret_json)
{
	json_t *layers = encode_layers(plan);
	json_t *donors = encode_donors(plan);
	if (!layers || !donors) {
		json_decref(layers);
		json_decref(donors);
		return -ENOMEM;
	}
	_cleanup_(json_decref_p) json_t *root =
		json_pack("{s:i, s:s, s:I, s:I, s:I, s:s*, s:s*, s:s*, s:i, s:i, s:i, s:i, s:o, s:o}", "version",
			  MOUNT_PLAN_VERSION, "source", plan->source, "deadline", (json_int_t)plan->deadline,
			  "fill_rate", (json_int_t)plan->fill_rate, "image_size", (json_int_t)plan->image_size,
			  "access", plan->access, "manifest", plan->manifest, "config", plan->config, "record",
			  plan->record_fd, "metrics", plan->metrics_fd, "profile", plan->profile_fd, "view",
			  plan->view_fd, "donors", donors, "layers", layers);
	if (!root || encode_cache(plan, root) < 0)
		return -ENOMEM;
	char *json = json_dumps(root, JSON_COMPACT);
	if (!json)
		return -ENOMEM;
	*ret_json = json;
	return 0;
}

int mount_plan_record(const MountPlan *plan, const char *place, const FetchImage *image, int *ret_fd)
{
	_cleanup_free_ StartRecordLayer *layers = calloc(image->layer_count + 1, sizeof(*layers));
	if (!layers)
		return -ENOMEM;
	for (size_t i = 0; i < image->layer_count; i++) {
		const FetchLayerFiles *files = &image->layers[i];
		layers[i] = (StartRecordLayer){ .diff_id = files->layer.diff_id, .index = files->layer.index };
		if (files->present_fd >= 0)
			layers[i].blob = files->layer.blob;
	}
	StartRecordLabel label = { 0 };
	(void)snprintf(label.place, sizeof(label.place), "%s", place);
	(void)snprintf(label.source, sizeof(label.source), "%s", plan->source);
	if (!plan->manifest || digest_from_text(plan->manifest, &label.manifest) < 0)
		label.manifest = (Digest){ 0 };
	if (!plan->config || digest_from_text(plan->config, &label.config) < 0)
		label.config = (Digest){ 0 };
	return start_record_create(&label, layers, image->layer_count, ret_fd);
}

int mount_plan_write(const MountPlan *plan, const char *name, int *ret_fd)
{
	_cleanup_free_ char *json = NULL;
	int r = mount_plan_encode(plan, &json);
	if (r < 0)
		return r;
	_cleanup_close_ int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	r = fd_write_all(fd, json, strlen(json));
	if (r < 0)
		return r;
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0)
		return -errno;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int decode_layer(json_t *object, MountPlanLayer *ret_layer)
{
	json_t *url;
	MountPlanLayer layer = { .decoded_fd = -1, .seal_fd = -1, .twins_fd = -1 };
	if (json_unpack(object, "{s:i, s:i, s:i, s?i, s?i, s?i, s:o}", "index", &layer.index_fd, "data", &layer.data_fd,
			"present", &layer.present_fd, "decoded", &layer.decoded_fd, "seal", &layer.seal_fd, "twins",
			&layer.twins_fd, "url", &url) < 0 ||
	    layer.index_fd < 0 || layer.data_fd < 0 || layer.present_fd < -1 || layer.decoded_fd < -1 ||
	    layer.seal_fd < -1 || layer.twins_fd < -1)
		return -EBADMSG;
	if (!json_is_null(url)) {
		if (!json_is_string(url))
			return -EBADMSG;
		layer.url = strdup(json_string_value(url));
		if (!layer.url)
			return -ENOMEM;
	}
	*ret_layer = layer;
	return 0;
}

static int decode_root(json_t *root, MountPlan *plan)
{
	int version;
	const char *source, *access = NULL, *manifest = NULL, *config = NULL;
	json_int_t deadline, image_size, fill_rate = 0;
	json_t *layers, *donors = NULL;
	if (json_unpack(root, "{s:i, s:s, s:I, s?I, s:I, s?s, s?s, s?s, s?i, s?i, s?i, s:i, s?o, s:o}", "version",
			&version, "source", &source, "deadline", &deadline, "fill_rate", &fill_rate, "image_size",
			&image_size, "access", &access, "manifest", &manifest, "config", &config, "record",
			&plan->record_fd, "metrics", &plan->metrics_fd, "profile", &plan->profile_fd, "view",
			&plan->view_fd, "donors", &donors, "layers", &layers) < 0)
		return -EBADMSG;
	if (version != MOUNT_PLAN_VERSION || deadline < 0 || image_size < 0 || fill_rate < 0 || plan->view_fd < 0 ||
	    plan->record_fd < -1 || plan->metrics_fd < -1 || plan->profile_fd < -1 || !json_is_array(layers) ||
	    (donors && !json_is_array(donors)) || decode_cache(root, plan) < 0)
		return -EBADMSG;
	plan->deadline = deadline;
	plan->fill_rate = (uint64_t)fill_rate;
	plan->image_size = (uint64_t)image_size;
	plan->source = strdup(source);
	plan->access = access ? strdup(access) : NULL;
	plan->manifest = manifest ? strdup(manifest) : NULL;
	plan->config = config ? strdup(config) : NULL;
	plan->layers = calloc(json_array_size(layers) + 1, sizeof(*plan->layers));
	plan->donor_fds = calloc(json_array_size(donors) + 1, sizeof(*plan->donor_fds));
	if (!plan->source || (access && !plan->access) || (manifest && !plan->manifest) || (config && !plan->config) ||
	    !plan->layers || !plan->donor_fds)
		return -ENOMEM;
	for (; plan->donor_count < json_array_size(donors); plan->donor_count++) {
		json_int_t fd = json_integer_value(json_array_get(donors, plan->donor_count));
		if (fd <= 0 || fd > INT32_MAX)
			return -EBADMSG;
		plan->donor_fds[plan->donor_count] = (int)fd;
	}
	for (; plan->layer_count < json_array_size(layers); plan->layer_count++) {
		int r = decode_layer(json_array_get(layers, plan->layer_count), &plan->layers[plan->layer_count]);
		if (r < 0)
			return r;
	}
	return 0;
}

int mount_plan_decode(const char *json, size_t size, MountPlan *ret_plan, Error *error)
{
	json_error_t fault;
	_cleanup_(json_decref_p) json_t *root = json_loadb(json, size, JSON_REJECT_DUPLICATES, &fault);
	if (!root)
		return error_set(error, -EBADMSG, "the plan of the mount is not JSON: %s", fault.text);
	_cleanup_(mount_plan_done) MountPlan plan = MOUNT_PLAN_NULL;
	int r = decode_root(root, &plan);
	if (r == -EBADMSG)
		return error_set(error, r,
				 "the plan of the mount is of another version of imgfs; unmount and mount again");
	if (r < 0)
		return error_set(error, r, "out of memory while reading the plan of the mount");
	*ret_plan = plan;
	plan = (MountPlan)MOUNT_PLAN_NULL;
	return 0;
}

int mount_plan_read(int fd, MountPlan *ret_plan, Error *error)
{
	FdMap map = { 0 };
	int r = fd_map(fd, &map);
	if (r == 0)
		r = mount_plan_decode((const char *)map.data, map.size, ret_plan, error);
	else
		r = error_set(error, r, "cannot read the plan of the mount: %s", strerror(-r));
	fd_unmap(&map);
	return r;
}
