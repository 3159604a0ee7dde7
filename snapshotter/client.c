#include "snapshotter/client.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "containerd.pb-c.h"
#include "snapshotter/client-ask.h"

#define CALL_MILLIS    60000
#define PREPARE_MILLIS 360000 /* longer than the snapshotter waits for imgfsd: lazy-daemon.c */
#define LEASE_SECONDS  3600
#define DATA_MAX       (15u << 20)
#define LABELS_MAX     16

#define SERVICE(name, method) "/containerd.services." name "/" method

struct Client {
	WireClient *wire;
	char lease[64];
};

/* Entries of a map<string, string>; all types of them are laid out alike. */
typedef struct Entries {
	Containerd__LeaseCreate__LabelsEntry entries[LABELS_MAX], *pointers[LABELS_MAX];
	size_t count;
} Entries;

static void fill_entries(const ClientLabel *labels, Entries *entries, const ProtobufCMessageDescriptor *type)
{
	for (entries->count = 0; labels && labels[entries->count].name && entries->count < LABELS_MAX;
	     entries->count++) {
		Containerd__LeaseCreate__LabelsEntry *entry = &entries->entries[entries->count];
		containerd__lease_create__labels_entry__init(entry);
		entry->base.descriptor = type;
		entry->key = (char *)(uintptr_t)labels[entries->count].name;
		entry->value = (char *)(uintptr_t)labels[entries->count].value;
		entries->pointers[entries->count] = entry;
	}
}

static int call(Client *client, const char *method, const ProtobufCMessage *message, Error *error)
{
	_cleanup_(buffer_done) Buffer reply = { 0 };
	return client_ask(client->wire, method, message, CALL_MILLIS, &reply, error);
}

static int take_lease(Client *client, Error *error)
{
	uint64_t random = 0;
	Containerd__LeaseCreate lease;
	Entries entries;
	char expires[32];
	time_t end = time(NULL) + LEASE_SECONDS;
	struct tm utc;
	if (getrandom(&random, sizeof(random), 0) < 0)
		return error_set(error, -errno, "no random number: %s", strerror(errno));
	(void)snprintf(client->lease, sizeof(client->lease), "imgfs-pull-%" PRIx64, random);
	(void)strftime(expires, sizeof(expires), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&end, &utc));
	fill_entries((ClientLabel[]){ { "containerd.io/gc.expire", expires }, { 0 } }, &entries,
		     &containerd__lease_create__labels_entry__descriptor);
	containerd__lease_create__init(&lease);
	lease.id = client->lease;
	lease.n_labels = entries.count;
	lease.labels = entries.pointers;
	int r = call(client, SERVICE("leases.v1.Leases", "Create"), &lease.base, error);
	return r < 0 ? r : wire_client_set_lease(client->wire, client->lease, error);
}

int client_open(const char *socket, const char *name_space, Client **ret_client, Error *error)
{
	Client *client = calloc(1, sizeof(*client));
	if (!client)
		return error_set(error, -ENOMEM, "out of memory");
	int r = wire_client_connect(socket, name_space, &client->wire, error);
	if (r == 0)
		r = take_lease(client, error);
	if (r < 0) {
		(void)wire_client_close(client->wire);
		free(client);
		return error_prefix(error, r, "containerd at %s", socket);
	}
	*ret_client = client;
	return 0;
}

Client *client_close(Client *client)
{
	if (!client)
		return NULL;
	Containerd__LeaseDelete lease;
	containerd__lease_delete__init(&lease);
	lease.id = client->lease;
	/* Where it fails the lease ends by itself. */
	int r = call(client, SERVICE("leases.v1.Leases", "Delete"), &lease.base, NULL);
	(void)r;
	(void)wire_client_close(client->wire);
	free(client);
	return NULL;
}

static int update_labels(Client *client, const char *digest, const ClientLabel *labels, Error *error)
{
	Containerd__ContentInfo info;
	Containerd__ContentUpdate update;
	Containerd__Mask mask;
	Entries entries;
	char paths[LABELS_MAX][256], *pointers[LABELS_MAX];
	fill_entries(labels, &entries, &containerd__content_info__labels_entry__descriptor);
	if (entries.count == 0)
		return 0;
	for (size_t i = 0; i < entries.count; i++) {
		(void)snprintf(paths[i], sizeof(paths[i]), "labels.%s", labels[i].name);
		pointers[i] = paths[i];
	}
	containerd__content_info__init(&info);
	containerd__content_update__init(&update);
	containerd__mask__init(&mask);
	info.digest = (char *)(uintptr_t)digest;
	info.n_labels = entries.count;
	info.labels = (Containerd__ContentInfo__LabelsEntry **)entries.pointers;
	mask.n_paths = entries.count;
	mask.paths = pointers;
	update.info = &info;
	update.update_mask = &mask;
	return call(client, SERVICE("content.v1.Content", "Update"), &update.base, error);
}

int client_put_content(Client *client, const char *digest, const void *data, size_t size, const ClientLabel *labels,
		       Error *error)
{
	Containerd__ContentWrite write;
	Entries entries;
	char ref[160];
	if (size > DATA_MAX)
		return error_set(error, -EFBIG, "%s is too large to be put into containerd: %zu bytes", digest, size);
	(void)snprintf(ref, sizeof(ref), "imgfs-%s-%s", client->lease, digest);
	fill_entries(labels, &entries, &containerd__content_write__labels_entry__descriptor);
	containerd__content_write__init(&write);
	write.action = CONTAINERD__WRITE_ACTION__COMMIT;
	write.ref = ref;
	write.total = (int64_t)size;
	write.expected = (char *)(uintptr_t)digest;
	write.data.data = (uint8_t *)(uintptr_t)data;
	write.data.len = size;
	write.n_labels = entries.count;
	write.labels = (Containerd__ContentWrite__LabelsEntry **)entries.pointers;
	int r = call(client, SERVICE("content.v1.Content", "Write"), &write.base, error);
	return r == -EEXIST ? update_labels(client, digest, labels, error) : r;
}

static int with_key(Client *client, const char *method, const char *snapshotter, const char *key, Error *error)
{
	Containerd__SnapshotKey request;
	containerd__snapshot_key__init(&request);
	request.snapshotter = (char *)(uintptr_t)snapshotter;
	request.key = (char *)(uintptr_t)key;
	return call(client, method, &request.base, error);
}

int client_lazy_snapshot(Client *client, const char *snapshotter, const char *chain, const char *parent,
			 const ClientLabel *labels, Error *error)
{
	Containerd__SnapshotPrepare prepare;
	Entries entries;
	_cleanup_(buffer_done) Buffer reply = { 0 };
	char key[256];
	(void)snprintf(key, sizeof(key), "extract-%s %s", client->lease, chain);
	fill_entries(labels, &entries, &containerd__snapshot_prepare__labels_entry__descriptor);
	containerd__snapshot_prepare__init(&prepare);
	prepare.snapshotter = (char *)(uintptr_t)snapshotter;
	prepare.key = key;
	if (parent)
		prepare.parent = (char *)(uintptr_t)parent;
	prepare.n_labels = entries.count;
	prepare.labels = (Containerd__SnapshotPrepare__LabelsEntry **)entries.pointers;
	/* Not Stat first: one that is there already, from another image with the same layers, is put under the lease by this (containerd 2). */
	int r = client_ask(client->wire, SERVICE("snapshots.v1.Snapshots", "Prepare"), &prepare.base, PREPARE_MILLIS,
			   &reply, error);
	if (r == -EEXIST)
		return with_key(client, SERVICE("snapshots.v1.Snapshots", "Stat"), snapshotter, chain, error);
	if (r < 0)
		return error_prefix(error, r, "snapshotter %s", snapshotter);
	r = with_key(client, SERVICE("snapshots.v1.Snapshots", "Remove"), snapshotter, key, error);
	return error_set(error, r < 0 ? r : -EOPNOTSUPP,
			 "snapshotter %s does not take the layer of %s lazily; its log says why", snapshotter, chain);
}

int client_put_image(Client *client, const char *name, const char *media_type, const char *digest, int64_t size,
		     Error *error)
{
	Containerd__Descriptor target;
	Containerd__Image image;
	Containerd__ImageRequest request;
	containerd__descriptor__init(&target);
	containerd__image__init(&image);
	containerd__image_request__init(&request);
	target.media_type = (char *)(uintptr_t)media_type;
	target.digest = (char *)(uintptr_t)digest;
	target.size = size;
	image.name = (char *)(uintptr_t)name;
	image.target = &target;
	request.image = &image;
	int r = call(client, SERVICE("images.v1.Images", "Create"), &request.base, error);
	return r == -EEXIST ? call(client, SERVICE("images.v1.Images", "Update"), &request.base, error) : r;
}
