#include "tools/export/zip-list.h"

#include <stdlib.h>
#include <string.h>

#include "fs/base/bytes.h"

#define DIRECTORY_MAX (64u << 20)
#define COMMENT_MAX   65535u

/* Records by their signatures, and how long they are without names and comments. */
enum {
	ENTRY_MAGIC = 0x02014b50,
	ENTRY_SIZE = 46,
	END_MAGIC = 0x06054b50,
	END_SIZE = 22,
	LOCATOR_MAGIC = 0x07064b50,
	LOCATOR_SIZE = 20,
	END64_MAGIC = 0x06064b50,
	END64_SIZE = 56,
	EXTRA_ZIP64 = 1,
};

/* Where the directory is. */
typedef struct Place {
	uint64_t offset, size, count;
} Place;

void zip_list_done(ZipList *list)
{
	free(list->entries);
	free(list->directory);
	*list = (ZipList){ 0 };
}

/* A large archive's end record, which a locator in front of the ordinary one names. */
static int read_end64(ZipRead *read, void *arg, uint64_t size, const uint8_t *locator, Place *place, Error *error)
{
	uint8_t end[END64_SIZE];
	uint64_t offset = load_le64(locator + 8);
	if (!range_within(offset, sizeof(end), size))
		return -EBADMSG;
	int r = read(arg, offset, end, sizeof(end), error);
	if (r < 0)
		return r;
	if (load_le32(end) != END64_MAGIC)
		return -EBADMSG;
	*place = (Place){ .count = load_le64(end + 32), .size = load_le64(end + 40), .offset = load_le64(end + 48) };
	return 0;
}

static int find_directory(ZipRead *read, void *arg, uint64_t size, Place *ret_place, Error *error)
{
	size_t window =
		size < END_SIZE + COMMENT_MAX + LOCATOR_SIZE ? (size_t)size : END_SIZE + COMMENT_MAX + LOCATOR_SIZE;
	_cleanup_free_ uint8_t *tail = malloc(window ? window : 1);
	if (!tail)
		return -ENOMEM;
	if (window < END_SIZE)
		return -EBADMSG;
	int r = read(arg, size - window, tail, window, error);
	if (r < 0)
		return r;
	for (size_t at = window - END_SIZE + 1; at-- > 0;) {
		const uint8_t *end = tail + at;
		if (load_le32(end) != END_MAGIC || load_le16(end + 20) != window - at - END_SIZE)
			continue;
		*ret_place = (Place){ .count = load_le16(end + 10),
				      .size = load_le32(end + 12),
				      .offset = load_le32(end + 16) };
		if (at >= LOCATOR_SIZE && load_le32(end - LOCATOR_SIZE) == LOCATOR_MAGIC)
			return read_end64(read, arg, size, end - LOCATOR_SIZE, ret_place, error);
		return 0;
	}
	return -EBADMSG;
}

/* The size that did not fit 32 bits stands first among the extra fields' 64-bit numbers. */
static int read_size64(const uint8_t *extra, size_t length, uint64_t *ret_size)
{
	while (length >= 4) {
		size_t field = load_le16(extra + 2);
		if (field > length - 4)
			return -EBADMSG;
		if (load_le16(extra) == EXTRA_ZIP64 && field >= 8) {
			*ret_size = load_le64(extra + 4);
			return 0;
		}
		extra += 4 + field;
		length -= 4 + field;
	}
	return -EBADMSG;
}

/* Takes one entry in; returns its length in the directory or a negative errno. */
static int64_t read_entry(const uint8_t *bytes, size_t left, ZipEntry *entry)
{
	if (left < ENTRY_SIZE || load_le32(bytes) != ENTRY_MAGIC)
		return -EBADMSG;
	uint16_t name = load_le16(bytes + 28), extra = load_le16(bytes + 30), comment = load_le16(bytes + 32);
	size_t length = ENTRY_SIZE + (size_t)name + extra + comment;
	if (length > left)
		return -EBADMSG;
	*entry = (ZipEntry){ .name = (const char *)bytes + ENTRY_SIZE,
			     .name_size = name,
			     .time = (uint32_t)load_le16(bytes + 14) << 16 | load_le16(bytes + 12),
			     .crc = load_le32(bytes + 16),
			     .packed = load_le32(bytes + 20),
			     .size = load_le32(bytes + 24) };
	int r = 0;
	if (entry->size == UINT32_MAX)
		r = read_size64(bytes + ENTRY_SIZE + name, extra, &entry->size);
	return r < 0 ? r : (int64_t)length;
}

static int compare_names(const ZipEntry *left, const ZipEntry *right)
{
	size_t size = left->name_size < right->name_size ? left->name_size : right->name_size;
	int order = memcmp(left->name, right->name, size);
	return order ? order : (int)left->name_size - (int)right->name_size;
}

static int compare_entries(const void *left, const void *right)
{
	const ZipEntry *first = left, *second = right;
	int order = compare_names(first, second);
	return order ? order : first->number < second->number ? -1 : first->number > second->number;
}

static int read_entries(ZipList *list, const Place *place)
{
	const uint8_t *at = list->directory;
	size_t left = (size_t)place->size;
	if (place->count > place->size / ENTRY_SIZE)
		return -EBADMSG;
	list->entries = calloc(place->count ? place->count : 1, sizeof(*list->entries));
	if (!list->entries)
		return -ENOMEM;
	for (uint32_t i = 0; i < place->count; i++) {
		int64_t length = read_entry(at, left, &list->entries[i]);
		if (length < 0)
			return (int)length;
		list->entries[i].number = i;
		at += length;
		left -= (size_t)length;
	}
	list->count = place->count;
	list->directory_size = (size_t)place->size;
	qsort(list->entries, list->count, sizeof(*list->entries), compare_entries);
	return 0;
}

int zip_list_read(ZipRead *read, void *arg, uint64_t size, ZipList *ret_list, Error *error)
{
	ZipList list = { 0 };
	Place place;
	int r = find_directory(read, arg, size, &place, error);
	if (r < 0)
		return r;
	if (!range_within(place.offset, place.size, size))
		return -EBADMSG;
	if (place.size > DIRECTORY_MAX)
		return -EFBIG;
	list.directory = malloc(place.size ? place.size : 1);
	if (!list.directory)
		return -ENOMEM;
	r = place.size > 0 ? read(arg, place.offset, list.directory, (size_t)place.size, error) : 0;
	if (r == 0)
		r = read_entries(&list, &place);
	if (r < 0) {
		zip_list_done(&list);
		return r;
	}
	*ret_list = list;
	return 0;
}

static bool is_directory(const ZipEntry *entry)
{
	return entry->size == 0 && entry->name_size > 0 && entry->name[entry->name_size - 1] == '/';
}

static void compare_one(const ZipEntry *left, const ZipEntry *right, ZipDifference *difference)
{
	if (is_directory(left ?: right)) {
		difference->layout_differs |= !left || !right;
		return;
	}
	difference->entries++;
	if (left && right && left->crc == right->crc && left->size == right->size) {
		difference->times_differ |= left->time != right->time;
		return;
	}
	difference->differ++;
	difference->differ_bytes += right ? right->packed : 0;
}

/* The places of an entry that both archives have. */
typedef struct Places {
	uint32_t left, right;
} Places;

static int compare_places(const void *left, const void *right)
{
	const Places *first = left, *second = right;
	return first->left < second->left ? -1 : first->left > second->left;
}

static bool same_order(Places *places, size_t count)
{
	qsort(places, count, sizeof(*places), compare_places);
	for (size_t i = 1; i < count; i++) {
		if (places[i].right < places[i - 1].right)
			return false;
	}
	return true;
}

int zip_list_compare(const ZipList *left, const ZipList *right, ZipDifference *ret_difference)
{
	ZipDifference difference = { 0 };
	size_t i = 0, j = 0, common = 0, most = left->count < right->count ? left->count : right->count;
	_cleanup_free_ Places *places = calloc(most + 1, sizeof(*places));
	if (!places)
		return -ENOMEM;
	while (i < left->count || j < right->count) {
		const ZipEntry *one = i < left->count ? &left->entries[i] : NULL;
		const ZipEntry *other = j < right->count ? &right->entries[j] : NULL;
		int order = !one ? 1 : !other ? -1 : compare_names(one, other);
		compare_one(order <= 0 ? one : NULL, order >= 0 ? other : NULL, &difference);
		if (order == 0)
			places[common++] = (Places){ .left = one->number, .right = other->number };
		i += order <= 0;
		j += order >= 0;
	}
	difference.layout_differs |= !same_order(places, common);
	*ret_difference = difference;
	return 0;
}
