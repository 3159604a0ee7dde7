#include "tools/export/tar-acl.h"

#include <string.h>

#include "fs/base/bytes.h"
#include "fs/format/format.h"

/* linux/posix_acl.h and linux/posix_acl_xattr.h; entries stand in the order of their tags, then of their IDs. */
enum {
	VERSION = 2,
	USER_OBJ = 0x01,
	USER = 0x02,
	GROUP_OBJ = 0x04,
	GROUP = 0x08,
	MASK = 0x10,
	OTHER = 0x20,
	HEADER_SIZE = 4,
	ENTRY_SIZE = 8,
};

#define NO_ID       UINT32_MAX
#define ENTRIES_MAX ((FORMAT_XATTR_VALUE_MAX - HEADER_SIZE) / ENTRY_SIZE)
#define FIELDS_MAX  4

typedef struct Entry {
	uint32_t tag, permissions, id;
} Entry;

typedef struct Field {
	const char *text;
	size_t size;
} Field;

static bool is(Field field, const char *word)
{
	return field.size == strlen(word) && memcmp(field.text, word, field.size) == 0;
}

/* Splits "tag:qualifier:permissions[:id]". Returns how many fields there are, FIELDS_MAX + 1 for too many. */
static size_t split(Field entry, Field fields[static FIELDS_MAX])
{
	size_t count = 0;
	for (;;) {
		const char *colon = memchr(entry.text, ':', entry.size);
		size_t size = colon ? (size_t)(colon - entry.text) : entry.size;
		if (count == FIELDS_MAX)
			return FIELDS_MAX + 1;
		fields[count++] = (Field){ .text = entry.text, .size = size };
		if (!colon)
			return count;
		entry = (Field){ .text = colon + 1, .size = entry.size - size - 1 };
	}
}

static bool parse_id(Field field, uint32_t *ret_id)
{
	uint64_t id = 0;
	if (field.size == 0 || field.size > 10)
		return false;
	for (size_t i = 0; i < field.size; i++) {
		if (field.text[i] < '0' || field.text[i] > '9')
			return false;
		id = 10 * id + (uint64_t)(field.text[i] - '0');
	}
	if (id >= NO_ID)
		return false;
	*ret_id = (uint32_t)id;
	return true;
}

static bool parse_permissions(Field field, uint32_t *ret_permissions)
{
	static const char letters[] = "xwr";
	uint32_t permissions = 0;
	if (field.size == 0 || field.size > 3)
		return false;
	for (size_t i = 0; i < field.size; i++) {
		const char *letter = field.text[i] ? strchr(letters, field.text[i]) : NULL;
		if (letter)
			permissions |= 1u << (letter - letters);
		else if (field.text[i] != '-')
			return false;
	}
	*ret_permissions = permissions;
	return true;
}

static bool parse_tag(Field tag, bool qualified, uint32_t *ret_tag)
{
	if (is(tag, "user") || is(tag, "u"))
		*ret_tag = qualified ? USER : USER_OBJ;
	else if (is(tag, "group") || is(tag, "g"))
		*ret_tag = qualified ? GROUP : GROUP_OBJ;
	else if ((is(tag, "mask") || is(tag, "m")) && !qualified)
		*ret_tag = MASK;
	else if ((is(tag, "other") || is(tag, "o")) && !qualified)
		*ret_tag = OTHER;
	else
		return false;
	return true;
}

/* One entry; `ret_named`: its user or group is known by name only. */
static bool parse_entry(Field text, Entry *ret_entry, bool *ret_named)
{
	Field fields[FIELDS_MAX] = { 0 };
	Entry entry = { .id = NO_ID };
	size_t count = split(text, fields);
	bool short_form = count == 2; /* "mask:rwx" */
	if (count < 2 || count > FIELDS_MAX)
		return false;
	Field qualifier = short_form ? (Field){ .text = "" } : fields[1];
	if (!parse_tag(fields[0], qualifier.size > 0, &entry.tag) ||
	    !parse_permissions(fields[short_form ? 1 : 2], &entry.permissions) ||
	    (short_form && entry.tag != MASK && entry.tag != OTHER))
		return false;
	*ret_named = false;
	if (count == FIELDS_MAX) {
		if (qualifier.size == 0 || !parse_id(fields[3], &entry.id))
			return false;
	} else if (qualifier.size > 0 && !parse_id(qualifier, &entry.id)) {
		*ret_named = !is(qualifier, "root");
		entry.id = 0;
	}
	*ret_entry = entry;
	return true;
}

static Field trimmed(Field field)
{
	const char *comment = memchr(field.text, '#', field.size);
	if (comment)
		field.size = (size_t)(comment - field.text);
	while (field.size > 0 && strchr(" \t", field.text[0])) {
		field.text++;
		field.size--;
	}
	while (field.size > 0 && strchr(" \t", field.text[field.size - 1]))
		field.size--;
	return field;
}

static int compare_entries(const void *left, const void *right)
{
	const Entry *one = left, *other = right;
	if (one->tag != other->tag)
		return one->tag < other->tag ? -1 : 1;
	return one->id < other->id ? -1 : one->id > other->id;
}

/* As the kernel wants it (posix_acl_valid()): each once, the three of a mode, and a mask if there is more. */
static bool is_valid(const Entry *entries, size_t count)
{
	uint32_t tags = 0;
	for (size_t i = 0; i < count; i++) {
		tags |= entries[i].tag;
		if (i > 0 && compare_entries(&entries[i - 1], &entries[i]) == 0)
			return false;
	}
	const uint32_t needed = USER_OBJ | GROUP_OBJ | OTHER;
	return (tags & needed) == needed && (!(tags & (USER | GROUP)) || tags & MASK);
}

/* Reads all entries into `ret_entries`, sorted. */
static int parse_list(const char *text, size_t size, Buffer *ret_entries, bool *ret_named, Error *error)
{
	const char *end = text + size;
	*ret_named = false;
	for (const char *at = text; at < end;) {
		size_t length = 0;
		while (at + length < end && at[length] != ',' && at[length] != '\n')
			length++;
		Field field = trimmed((Field){ .text = at, .size = length });
		at += length + 1;
		Entry entry;
		bool named;
		if (field.size == 0)
			continue;
		if (!parse_entry(field, &entry, &named))
			return error_set(error, -EBADMSG, "the entry %.*s of an access control list is malformed",
					 field.size < 80 ? (int)field.size : 80, field.text);
		if (ret_entries->size / sizeof(entry) == ENTRIES_MAX)
			return error_set(error, -EOPNOTSUPP, "an access control list of more than %u entries",
					 (unsigned)ENTRIES_MAX);
		*ret_named = *ret_named || named;
		int r = buffer_append(ret_entries, &entry, sizeof(entry));
		if (r < 0)
			return r;
	}
	if (ret_entries->size > 0)
		qsort(ret_entries->data, ret_entries->size / sizeof(Entry), sizeof(Entry), compare_entries);
	return 0;
}

/* The group's bits of a mode are the mask's, where there is one. */
static uint32_t permission_bits(const Entry *entries, size_t count)
{
	uint32_t bits = 0;
	for (size_t i = 0; i < count; i++) {
		if (entries[i].tag == USER_OBJ)
			bits |= entries[i].permissions << 6;
		else if (entries[i].tag == MASK || entries[i].tag == GROUP_OBJ)
			bits = (bits & ~070u) | entries[i].permissions << 3;
		else if (entries[i].tag == OTHER)
			bits |= entries[i].permissions;
	}
	return bits;
}

static int put_list(const Entry *entries, size_t count, Buffer *ret_value)
{
	uint8_t *to = buffer_extend(ret_value, HEADER_SIZE + count * ENTRY_SIZE);
	if (!to)
		return -ENOMEM;
	store_le32(to, VERSION);
	to += HEADER_SIZE;
	for (size_t i = 0; i < count; i++, to += ENTRY_SIZE) {
		store_le16(to, (uint16_t)entries[i].tag);
		store_le16(to + 2, (uint16_t)entries[i].permissions);
		store_le32(to + 4, entries[i].id);
	}
	return 0;
}

int tar_acl_encode(const char *text, size_t size, uint32_t *mode, Buffer *ret_value, Error *error)
{
	_cleanup_(buffer_done) Buffer list = { 0 };
	bool named;
	int r = parse_list(text, size, &list, &named, error);
	size_t count = list.size / sizeof(Entry);
	if (r < 0 || count == 0 || named)
		return r;
	if (!is_valid((const Entry *)list.data, count))
		return error_set(
			error, -EBADMSG,
			"an access control list lacks the entry of user, group, other or mask, or has one twice");
	if (mode)
		*mode = (*mode & ~0777u) | permission_bits((const Entry *)list.data, count);
	/* Three entries are a mode. */
	if (mode && count == 3)
		return 0;
	return put_list((const Entry *)list.data, count, ret_value);
}
