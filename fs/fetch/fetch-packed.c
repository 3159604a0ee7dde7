#include "fs/fetch/fetch-packed.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/base/bytes.h"
#include "fs/base/fd.h"
#include "fs/fetch/fetch-twins.h"

enum { AT_TAR = 0, AT_FRAME = 8, AT_FRAME_SIZE = 16, AT_CHUNK_SIZE = 20, AT_SKIP = 24, AT_SIZE = 28, AT_DIGEST = 32 };

#define OFFSET_MASK ((UINT64_C(1) << FETCH_TWIN_OFFSET_BITS) - 1)

/* In the cache of decoded chunks a donor's chunk goes by its place, which no blob's number is. */
#define DECODED_BIT (UINT64_C(1) << 63)

/* Where a packed file stands. */
typedef struct Place {
	uint64_t tar_offset;
	uint32_t chunk;
	uint32_t skip; /* of the chunk */
	uint32_t size;
	const uint8_t *digest; /* in the index */
} Place;

typedef struct Wanted {
	Place place;
	uint32_t layer;
	uint64_t frame; /* donor and offset; 0: not found */
	uint32_t frame_size, chunk_size, skip;
} Wanted;

struct FetchPackedSearch {
	Wanted *wanted; /* ascending by digest */
	size_t count, room;
};

/* Calls `each` for the packed files of an index that lie in one chunk, as those of imgfs do. Errors: each's, tree_open()'s. */
static int for_each_packed(FetchIndex *index, int (*each)(void *arg, const Place *place), void *arg)
{
	const ImageSection *section = &index->image.sections[FORMAT_SECTION_PACKED_DIGESTS];
	size_t count = section->present ? section->size / DIGEST_SIZE : 0, used = 0;
	if (count == 0)
		return 0;
	int r = fetch_index_open_tree(index, NULL);
	for (uint32_t i = 0; r == 0 && i < index->tree.inode_count && used < count; i++) {
		TreeInode inode;
		Chunk chunk;
		tree_inode(&index->tree, i, &inode);
		if (!tree_is_packed(&inode))
			continue;
		Place place = {
			.tar_offset = inode.data,
			.size = (uint32_t)inode.size,
			.digest = section->data + used++ * DIGEST_SIZE,
		};
		if (!range_within(inode.data, inode.size, index->table.tar_size))
			continue;
		place.chunk = chunk_table_find(&index->table, inode.data);
		chunk_table_get(&index->table, place.chunk, &chunk);
		place.skip = (uint32_t)(inode.data - chunk.tar_offset);
		if (place.size <= chunk.tar_size - place.skip)
			r = each(arg, &place);
	}
	return r;
}

typedef struct Listing {
	FetchPackedSearch *search;
	const uint8_t *bits;
	uint32_t layer;
} Listing;

static int list_one(void *arg, const Place *place)
{
	const Listing *listing = arg;
	FetchPackedSearch *search = listing->search;
	if (cache_bits_have(listing->bits, place->chunk))
		return 0;
	if (search->count == search->room) {
		size_t room = 2 * search->room + 1024;
		Wanted *wanted = reallocarray(search->wanted, room, sizeof(*wanted));
		if (!wanted)
			return -ENOMEM;
		search->wanted = wanted;
		search->room = room;
	}
	search->wanted[search->count++] = (Wanted){ .place = *place, .layer = listing->layer };
	return 0;
}

static int compare_digests(const void *left, const void *right)
{
	const Wanted *a = left, *b = right;
	return memcmp(a->place.digest, b->place.digest, DIGEST_SIZE);
}

int fetch_packed_search_new(FetchIndex *indexes, size_t layer_count, uint8_t *const *bits,
			    FetchPackedSearch **ret_search)
{
	FetchPackedSearch *search = calloc(1, sizeof(*search));
	if (!search)
		return -ENOMEM;
	for (size_t i = 0; i < layer_count; i++) {
		Listing listing = { .search = search, .bits = bits[i], .layer = (uint32_t)i };
		if (for_each_packed(&indexes[i], list_one, &listing) == -ENOMEM) {
			fetch_packed_search_free(search);
			return -ENOMEM;
		}
	}
	if (search->count > 0)
		qsort(search->wanted, search->count, sizeof(*search->wanted), compare_digests);
	*ret_search = search;
	return 0;
}

FetchPackedSearch *fetch_packed_search_free(FetchPackedSearch *search)
{
	if (search)
		free(search->wanted);
	free(search);
	return NULL;
}

typedef struct Entering {
	FetchPackedSearch *search;
	const ChunkTable *table;
	const uint8_t *bits;
	uint64_t donor;
	bool entered;
} Entering;

/* The first wanted file with this content, or the end. */
static size_t find_wanted(const FetchPackedSearch *search, const uint8_t *digest)
{
	size_t low = 0, high = search->count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (memcmp(search->wanted[middle].place.digest, digest, DIGEST_SIZE) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static int enter_one(void *arg, const Place *place)
{
	Entering *entering = arg;
	FetchPackedSearch *search = entering->search;
	if (!cache_bits_have(entering->bits, place->chunk))
		return 0;
	for (size_t i = find_wanted(search, place->digest); i < search->count; i++) {
		Wanted *wanted = &search->wanted[i];
		Chunk chunk;
		if (memcmp(wanted->place.digest, place->digest, DIGEST_SIZE) != 0)
			break;
		if (wanted->frame != 0 || wanted->place.size != place->size)
			continue;
		chunk_table_get(entering->table, place->chunk, &chunk);
		if (chunk.blob_offset > OFFSET_MASK)
			break;
		wanted->frame = entering->donor << FETCH_TWIN_OFFSET_BITS | chunk.blob_offset;
		wanted->frame_size = chunk.blob_size;
		wanted->chunk_size = chunk.tar_size;
		wanted->skip = place->skip;
		entering->entered = true;
	}
	return 0;
}

bool fetch_packed_search_enter(FetchPackedSearch *search, FetchIndex *index, const uint8_t *bits, uint64_t donor)
{
	Entering entering = { .search = search, .table = &index->table, .bits = bits, .donor = donor };
	if (search->count == 0)
		return false;
	/* What was entered before a fault is good all the same. */
	(void)for_each_packed(index, enter_one, &entering);
	return entering.entered;
}

static bool is_found(const Wanted *wanted, uint32_t layer)
{
	return wanted->layer == layer && wanted->frame != 0;
}

size_t fetch_packed_search_count(const FetchPackedSearch *search, uint32_t layer)
{
	size_t count = 0;
	for (size_t i = 0; i < search->count; i++)
		count += is_found(&search->wanted[i], layer);
	return count;
}

static int compare_offsets(const void *left, const void *right)
{
	uint64_t a = load_le64(left), b = load_le64(right);
	return (a > b) - (a < b);
}

int fetch_packed_search_write(const FetchPackedSearch *search, uint32_t layer, const uint8_t *twins, int fd)
{
	size_t count = fetch_packed_search_count(search, layer), used = 0;
	_cleanup_free_ uint8_t *table = calloc(count + 1, FETCH_PACKED_SIZE);
	if (!table)
		return -ENOMEM;
	for (size_t i = 0; i < search->count; i++) {
		const Wanted *wanted = &search->wanted[i];
		uint8_t *entry = table + used * FETCH_PACKED_SIZE;
		if (!is_found(wanted, layer) ||
		    (twins && load_le64(twins + (size_t)wanted->place.chunk * FETCH_TWIN_SIZE) != 0))
			continue;
		store_le64(entry + AT_TAR, wanted->place.tar_offset);
		store_le64(entry + AT_FRAME, wanted->frame);
		store_le32(entry + AT_FRAME_SIZE, wanted->frame_size);
		store_le32(entry + AT_CHUNK_SIZE, wanted->chunk_size);
		store_le32(entry + AT_SKIP, wanted->skip);
		store_le32(entry + AT_SIZE, wanted->place.size);
		memcpy(entry + AT_DIGEST, wanted->place.digest, DIGEST_SIZE);
		used++;
	}
	qsort(table, used, FETCH_PACKED_SIZE, compare_offsets);
	return fd_write_all(fd, table, used * FETCH_PACKED_SIZE);
}

int fetch_packed_check(const uint8_t *table, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const uint8_t *entry = table + i * FETCH_PACKED_SIZE;
		uint32_t frame_size = load_le32(entry + AT_FRAME_SIZE), chunk_size = load_le32(entry + AT_CHUNK_SIZE);
		if ((i > 0 && compare_offsets(entry - FETCH_PACKED_SIZE, entry) > 0) || frame_size > FORMAT_FRAME_MAX ||
		    chunk_size > FORMAT_CHUNK_MAX ||
		    !range_within(load_le32(entry + AT_SKIP), load_le32(entry + AT_SIZE), chunk_size))
			return -EBADMSG;
	}
	return 0;
}

/* The file that holds the range, or NULL. */
static const uint8_t *find_file(const FetchBlob *blob, uint64_t tar_offset, uint64_t size)
{
	size_t low = 0, high = blob->packed_count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (load_le64(blob->packed + middle * FETCH_PACKED_SIZE) <= tar_offset)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == 0)
		return NULL;
	const uint8_t *entry = blob->packed + (low - 1) * FETCH_PACKED_SIZE;
	uint64_t inside = tar_offset - load_le64(entry + AT_TAR);
	return range_within(inside, size, load_le32(entry + AT_SIZE)) ? entry : NULL;
}

/* The donor's chunk, decoded; pinned. NULL: it cannot be read, or memory is out. */
static FetchSlot *decode_donor(const FetchBlob *blob, FrameDecoder *decoder, uint8_t *frame, const uint8_t *entry)
{
	FetchDecoded *decoded = &blob->fetcher->decoded;
	const FetchDonors *donors = blob->donors;
	uint64_t place = load_le64(entry + AT_FRAME);
	uint32_t frame_size = load_le32(entry + AT_FRAME_SIZE);
	size_t donor = (size_t)(place >> FETCH_TWIN_OFFSET_BITS);
	FetchSlot *slot = fetch_decoded_find(decoded, DECODED_BIT | place, donors->id);
	if (slot)
		return slot;
	if (donor < 1 || donor > donors->count ||
	    fd_pread_all(donors->fds[donor - 1], frame, frame_size, place & OFFSET_MASK) < 0)
		return NULL;
	slot = fetch_decoded_claim(decoded);
	if (!slot)
		return NULL;
	if (frame_decode(decoder, frame, frame_size, slot->content, load_le32(entry + AT_CHUNK_SIZE)) < 0) {
		fetch_decoded_unpin(decoded, slot);
		return NULL;
	}
	fetch_decoded_publish(decoded, slot, DECODED_BIT | place, donors->id);
	return slot;
}

bool fetch_packed_read(FetchBlob *blob, FrameDecoder *decoder, uint8_t *frame, uint64_t tar_offset, uint64_t size,
		       void *to)
{
	const uint8_t *entry = find_file(blob, tar_offset, size);
	FetchSlot *slot = entry ? decode_donor(blob, decoder, frame, entry) : NULL;
	if (!slot)
		return false;
	const uint8_t *content = slot->content + load_le32(entry + AT_SKIP);
	Digest digest;
	bool sound = digest_of(content, load_le32(entry + AT_SIZE), &digest) == 0 &&
		     memcmp(digest.bytes, entry + AT_DIGEST, DIGEST_SIZE) == 0;
	if (sound)
		memcpy(to, content + (tar_offset - load_le64(entry + AT_TAR)), size);
	fetch_decoded_unpin(&blob->fetcher->decoded, slot);
	return sound;
}
