#include "fs/fetch/fetch-twins.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "fs/base/bytes.h"
#include "fs/fetch/fetch-manifest.h"
#include "fs/fetch/fetch-packed.h"

#define MANIFESTS_MAX 16u  /* those got last: with the version before there is little left to find in others */
#define SEEN_MAX      512u /* blobs looked at */

/* A chunk that a layer lacks. Sorted by the start of its digest. */
typedef struct Lacking {
	uint64_t key;
	uint32_t layer;
	uint32_t chunk;
} Lacking;

typedef struct Search {
	CacheStore *cache;
	FetchIndex *indexes;
	FetchImage *image;
	Lacking *lacking;
	size_t lacking_count;
	uint8_t **bits;   /* by layer: which chunks are there */
	uint8_t **tables; /* of twins, by layer */
	FetchPackedSearch *packed;
	Digest seen[SEEN_MAX];
	size_t seen_count;
} Search;

static uint64_t key_of(const Digest *digest)
{
	return load_le64(digest->bytes);
}

static int compare_lacking(const void *left, const void *right)
{
	const Lacking *a = left, *b = right;
	return (a->key > b->key) - (a->key < b->key);
}

static int list_lacking(Search *search)
{
	size_t total = 0;
	for (size_t i = 0; i < search->image->layer_count; i++)
		total += search->indexes[i].table.count;
	search->lacking = calloc(total + 1, sizeof(*search->lacking));
	if (!search->lacking)
		return -ENOMEM;
	for (size_t i = 0; i < search->image->layer_count; i++) {
		const ChunkTable *table = &search->indexes[i].table;
		search->bits[i] = cache_bits_read(search->image->layers[i].present_fd, table->count);
		if (!search->bits[i])
			return -ENOMEM;
		for (uint32_t chunk = 0; chunk < table->count; chunk++) {
			Chunk entry;
			if (cache_bits_have(search->bits[i], chunk))
				continue;
			chunk_table_get(table, chunk, &entry);
			search->lacking[search->lacking_count++] = (Lacking){
				.key = key_of(&entry.digest),
				.layer = (uint32_t)i,
				.chunk = chunk,
			};
		}
	}
	qsort(search->lacking, search->lacking_count, sizeof(*search->lacking), compare_lacking);
	return 0;
}

/* The first with this key, or the end. */
static size_t find_lacking(const Search *search, uint64_t key)
{
	size_t low = 0, high = search->lacking_count;
	while (low < high) {
		size_t middle = (low + high) / 2;
		if (search->lacking[middle].key < key)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static uint8_t *table_of(Search *search, uint32_t layer)
{
	if (!search->tables[layer])
		search->tables[layer] = calloc((size_t)search->indexes[layer].table.count + 1, FETCH_TWIN_SIZE);
	return search->tables[layer];
}

/* Enters a chunk of a donor wherever its frame is lacking. */
static bool enter(Search *search, const Chunk *entry)
{
	bool entered = false;
	uint64_t key = key_of(&entry->digest), donor = search->image->donor_count + 1;
	if (entry->blob_offset >> FETCH_TWIN_OFFSET_BITS)
		return false;
	for (size_t i = find_lacking(search, key); i < search->lacking_count && search->lacking[i].key == key; i++) {
		const Lacking *lacking = &search->lacking[i];
		Chunk own;
		chunk_table_get(&search->indexes[lacking->layer].table, lacking->chunk, &own);
		uint8_t *table = table_of(search, lacking->layer);
		if (!table || !digest_equal(&own.digest, &entry->digest) || own.blob_size != entry->blob_size ||
		    load_le64(table + (size_t)lacking->chunk * FETCH_TWIN_SIZE) != 0)
			continue;
		store_le64(table + (size_t)lacking->chunk * FETCH_TWIN_SIZE,
			   donor << FETCH_TWIN_OFFSET_BITS | entry->blob_offset);
		entered = true;
	}
	return entered;
}

static bool enter_all(Search *search, FetchIndex *index, int present_fd)
{
	bool entered = false;
	const ChunkTable *table = &index->table;
	_cleanup_free_ uint8_t *bits = cache_bits_read(present_fd, table->count);
	if (!bits)
		return false;
	for (uint32_t chunk = 0; chunk < table->count; chunk++) {
		Chunk entry;
		if (!cache_bits_have(bits, chunk))
			continue;
		chunk_table_get(table, chunk, &entry);
		entered |= enter(search, &entry);
	}
	return fetch_packed_search_enter(search->packed, index, bits, search->image->donor_count + 1) || entered;
}

/* Notes a blob; says whether it was met before. */
static bool is_seen(Search *search, const Digest *blob)
{
	for (size_t i = 0; i < search->seen_count; i++)
		if (digest_equal(&search->seen[i], blob))
			return true;
	if (search->seen_count == SEEN_MAX)
		return true;
	search->seen[search->seen_count++] = *blob;
	return false;
}

static void look_into(Search *search, const ManifestLayer *layer)
{
	FetchImage *image = search->image;
	_cleanup_close_ int data = -1, present = -1;
	if (is_seen(search, &layer->blob) || image->donor_count == FETCH_DONORS_MAX ||
	    cache_store_blob_get(search->cache, &layer->blob, &data, &present) < 0)
		return;
	FetchIndex index = { .fd = -1 };
	if (fetch_index_open(search->cache, layer, &index, NULL) < 0)
		return;
	/* Only now there is somebody who may have them. */
	if (!search->packed &&
	    fetch_packed_search_new(search->indexes, image->layer_count, search->bits, &search->packed) < 0) {
		fetch_index_close(&index);
		return;
	}
	if (enter_all(search, &index, present))
		image->donor_fds[image->donor_count++] = TAKE_FD(data);
	fetch_index_close(&index);
}

static int look_into_all(Search *search)
{
	Digest manifests[MANIFESTS_MAX];
	size_t count;
	int r = cache_store_newest(search->cache, CACHE_MANIFEST, MANIFESTS_MAX, manifests, &count);
	for (size_t i = 0; r == 0 && i < count; i++) {
		_cleanup_(fetch_manifest_done) FetchManifest manifest = { 0 };
		if (fetch_manifest_cached(search->cache, &manifests[i], &manifest) < 0)
			continue;
		for (size_t j = 0; j < manifest.manifest.layer_count; j++)
			look_into(search, &manifest.manifest.layers[j]);
	}
	return r;
}

static int write_table(Search *search, uint32_t layer)
{
	if (!search->tables[layer] && fetch_packed_search_count(search->packed, layer) == 0)
		return 0;
	const uint8_t *table = table_of(search, layer);
	if (!table)
		return -ENOMEM;
	_cleanup_close_ int fd = memfd_create("imgfs-twins", MFD_CLOEXEC);
	int r = fd < 0 ? -errno : fd_write_all(fd, table, (size_t)search->indexes[layer].table.count * FETCH_TWIN_SIZE);
	if (r == 0)
		r = fetch_packed_search_write(search->packed, layer, table, fd);
	if (r == 0)
		search->image->layers[layer].twins_fd = TAKE_FD(fd);
	return r;
}

static int search_all(Search *search)
{
	FetchImage *image = search->image;
	search->bits = calloc(image->layer_count, sizeof(*search->bits));
	int r = search->bits ? list_lacking(search) : -ENOMEM;
	if (r < 0 || search->lacking_count == 0)
		return r;
	search->tables = calloc(image->layer_count, sizeof(*search->tables));
	image->donor_fds = calloc(FETCH_DONORS_MAX, sizeof(*image->donor_fds));
	if (!search->tables || !image->donor_fds)
		return -ENOMEM;
	for (size_t i = 0; i < image->layer_count; i++)
		(void)is_seen(search, &image->layers[i].layer.blob);
	r = look_into_all(search);
	if (!search->packed) /* no donor was found at all */
		return r;
	for (size_t i = 0; r == 0 && i < image->layer_count; i++)
		r = write_table(search, (uint32_t)i);
	return r;
}

void fetch_twins_find(CacheStore *cache, FetchIndex *indexes, FetchImage *image)
{
	Search *search = calloc(1, sizeof(*search));
	if (!search)
		return;
	search->cache = cache;
	search->indexes = indexes;
	search->image = image;
	/* A search that failed half-way has left nothing that is wrong. */
	(void)search_all(search);
	for (size_t i = 0; search->tables && i < image->layer_count; i++)
		free(search->tables[i]);
	for (size_t i = 0; search->bits && i < image->layer_count; i++)
		free(search->bits[i]);
	free((void *)search->tables);
	free((void *)search->bits);
	fetch_packed_search_free(search->packed);
	free(search->lacking);
	free(search);
}
