/*
 * Frames by their content. The lists in frames/ stay mapped; a table of (list, chunk) pairs, keyed by the XXH3 of the content,
 * finds a chunk in them. Where the chunk is in its blob comes from the blob's own index, read when a first frame of it is asked for.
 */
#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/base/bytes.h"
#include "fs/base/fd.h"
#include "fs/format/chunk-table.h"
#include "tools/export/blob-file.h"
#include "tools/export/store-private.h"

#define OPEN_BLOBS 64 /* descriptors held at once */

/* Where a chunk's frame is. */
typedef struct Place {
	uint64_t offset;
	uint32_t size;
	Digest digest;
} Place;

typedef struct FrameList {
	Digest blob;
	FdMap contents; /* a key a chunk */
	Place *places;  /* as many; NULL until asked for */
	int fd;         /* of the blob, or -1 */
	bool useless;   /* the blob is gone or damaged */
} FrameList;

struct StoreFrames {
	FrameList *lists;
	size_t list_count;
	uint64_t *slots; /* list number + 1 in the upper half, chunk in the lower; 0 is empty */
	size_t slot_count;
	size_t open[OPEN_BLOBS]; /* list numbers + 1, a ring */
	size_t open_next;
};

StoreFrames *store_frames_free(StoreFrames *frames)
{
	if (frames) {
		for (size_t i = 0; i < frames->list_count; i++) {
			fd_unmap(&frames->lists[i].contents);
			free(frames->lists[i].places);
			if (frames->lists[i].fd >= 0)
				(void)close(frames->lists[i].fd);
		}
		free(frames->lists);
		free(frames->slots);
		free(frames);
	}
	return NULL;
}

DEFINE_CLEANUP(StoreFrames, store_frames_free);

static size_t list_size(const FrameList *list)
{
	return list->contents.size / STORE_FRAME_KEY_SIZE;
}

/* Adds one list; what is no list of frames is left out. */
static int add_list(StoreFrames *frames, int directory, const char *name)
{
	FrameList list = { .fd = -1 };
	if (digest_from_hex(name, &list.blob) < 0)
		return 0;
	_cleanup_close_ int fd = openat(directory, name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat status;
	if (fd < 0 || fstat(fd, &status) < 0 || !S_ISREG(status.st_mode) ||
	    status.st_size % STORE_FRAME_KEY_SIZE != 0 || status.st_size / STORE_FRAME_KEY_SIZE > UINT32_MAX)
		return 0;
	FrameList *lists = reallocarray(frames->lists, frames->list_count + 1, sizeof(*lists));
	if (!lists)
		return -ENOMEM;
	frames->lists = lists;
	if (fd_map(fd, &list.contents) < 0)
		return 0;
	lists[frames->list_count++] = list;
	return 0;
}

static int load_lists(StoreFrames *frames, Store *store)
{
	int fd = openat(store->fd, "frames", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	_cleanup_closedir_ DIR *directory = fdopendir(fd);
	if (!directory) {
		(void)close(fd);
		return -ENOMEM;
	}
	int r = 0;
	for (struct dirent *entry = readdir(directory); entry && r == 0; entry = readdir(directory))
		r = add_list(frames, dirfd(directory), entry->d_name);
	return r;
}

static uint64_t list_key(const FrameList *list, size_t chunk)
{
	return load_le64(list->contents.data + chunk * STORE_FRAME_KEY_SIZE);
}

static uint64_t slot_content(const StoreFrames *frames, uint64_t slot)
{
	return list_key(&frames->lists[(slot >> 32) - 1], slot & UINT32_MAX);
}

/* The slot that holds `content`, or the empty one where it belongs. */
static uint64_t *find_slot(const StoreFrames *frames, uint64_t content)
{
	size_t mask = frames->slot_count - 1, at = content & mask;
	while (frames->slots[at] != 0 && slot_content(frames, frames->slots[at]) != content)
		at = (at + 1) & mask;
	return &frames->slots[at];
}

/* Makes the table, without lists that turned out to be useless. */
static int build_table(StoreFrames *frames)
{
	size_t total = 0, slot_count = 16;
	for (size_t i = 0; i < frames->list_count; i++)
		total += list_size(&frames->lists[i]);
	while (slot_count < 2 * total)
		slot_count *= 2;
	free(frames->slots);
	frames->slots = calloc(slot_count, sizeof(*frames->slots));
	if (!frames->slots)
		return -ENOMEM;
	frames->slot_count = slot_count;
	for (size_t i = 0; i < frames->list_count; i++) {
		const FrameList *list = &frames->lists[i];
		for (size_t chunk = 0; chunk < list_size(list) && !list->useless; chunk++) {
			uint64_t *slot = find_slot(frames, list_key(list, chunk));
			if (*slot == 0)
				*slot = (uint64_t)(i + 1) << 32 | chunk;
		}
	}
	return 0;
}

static int load(Store *store)
{
	_cleanup_(store_frames_free_p) StoreFrames *frames = calloc(1, sizeof(*frames));
	if (!frames)
		return -ENOMEM;
	int r = load_lists(frames, store);
	if (r == 0)
		r = build_table(frames);
	if (r == 0)
		store->frames = TAKE_PTR(frames);
	return r;
}

static int load_places(FrameList *list, uint64_t blob_size)
{
	_cleanup_free_ uint8_t *data = NULL;
	size_t size;
	Image image;
	ChunkTable table;
	BlobFooter footer;
	int r = blob_file_read_index(list->fd, blob_size, &footer, &data, &size, NULL);
	if (r == 0)
		r = image_open(data, size, &image, NULL);
	if (r == 0)
		r = chunk_table_open(&image, &table, NULL);
	if (r < 0)
		return r;
	if (table.count != list_size(list))
		return -EBADMSG;
	list->places = calloc(table.count, sizeof(*list->places));
	if (!list->places)
		return -ENOMEM;
	for (uint32_t i = 0; i < table.count; i++) {
		Chunk chunk;
		chunk_table_get(&table, i, &chunk);
		list->places[i] =
			(Place){ .offset = chunk.blob_offset, .size = chunk.blob_size, .digest = chunk.digest };
	}
	return 0;
}

/* Opens a list's blob; the one opened longest ago is closed where the ring is full. */
static int open_blob(Store *store, size_t number)
{
	StoreFrames *frames = store->frames;
	FrameList *list = &frames->lists[number];
	uint64_t blob_size;
	if (list->fd >= 0)
		return 0;
	size_t *place = &frames->open[frames->open_next];
	if (*place != 0) {
		(void)close(frames->lists[*place - 1].fd);
		frames->lists[*place - 1].fd = -1;
		*place = 0;
	}
	int r = store_blob_open(store, &list->blob, &list->fd, &blob_size);
	if (r < 0)
		return r;
	*place = number + 1;
	frames->open_next = (frames->open_next + 1) % OPEN_BLOBS;
	return list->places ? 0 : load_places(list, blob_size);
}

/* A list that holds `content`, its blob open; and the chunk's number in it. */
static int find_list(Store *store, uint64_t content, const FrameList **ret_list, size_t *ret_chunk)
{
	StoreFrames *frames = store->frames;
	for (;;) {
		uint64_t slot = *find_slot(frames, content);
		if (slot == 0)
			return -ENOENT;
		FrameList *list = &frames->lists[(slot >> 32) - 1];
		if (open_blob(store, (slot >> 32) - 1) == 0) {
			*ret_list = list;
			*ret_chunk = slot & UINT32_MAX;
			return 0;
		}
		/* A blob that is gone or damaged costs its own frames; another may have the same content. */
		list->useless = true;
		int r = build_table(frames);
		if (r < 0) {
			store->frames = store_frames_free(frames);
			return r;
		}
	}
}

int store_frame_find(Store *store, uint64_t content, StoreFrame *ret_frame)
{
	const FrameList *list;
	size_t chunk;
	int r = store->frames ? 0 : load(store);
	if (r < 0)
		return r;
	r = find_list(store, content, &list, &chunk);
	if (r < 0)
		return r;
	const Place *place = &list->places[chunk];
	*ret_frame =
		(StoreFrame){ .fd = list->fd, .offset = place->offset, .size = place->size, .digest = place->digest };
	return 0;
}
