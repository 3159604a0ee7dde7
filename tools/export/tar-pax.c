#include "tools/export/tar-pax.h"

#include <openssl/evp.h>
#include <string.h>

typedef struct Record {
	const char *key; /* NUL-terminated */
	size_t key_size;
	TarPaxText value;
} Record;

void tar_pax_done(TarPax *pax)
{
	free(pax->text);
	free(pax->xattrs);
	tar_map_done(&pax->map);
	*pax = (TarPax){ 0 };
}

static int bad_value(Error *error, const Record *record)
{
	return error_set(error, -EBADMSG, "the value of pax record %.80s is malformed", record->key);
}

static int parse_digits(const uint8_t *text, size_t size, uint64_t *ret_value)
{
	uint64_t value = 0;
	if (size == 0)
		return -EBADMSG;
	for (size_t i = 0; i < size; i++) {
		if (text[i] < '0' || text[i] > '9' || __builtin_mul_overflow(value, 10, &value) ||
		    __builtin_add_overflow(value, text[i] - '0', &value))
			return -EBADMSG;
	}
	*ret_value = value;
	return 0;
}

static int set_text(const TarPax *pax, const Record *record, TarPaxText *text, Error *error)
{
	if (memchr(pax->text + record->value.offset, '\0', record->value.size))
		return bad_value(error, record);
	*text = record->value;
	text->state = record->value.size > 0 ? TAR_PAX_SET : TAR_PAX_REMOVED;
	return 0;
}

static int set_number(const TarPax *pax, const Record *record, TarPaxNumber *number, uint64_t limit, Error *error)
{
	if (record->value.size == 0) {
		number->state = TAR_PAX_REMOVED;
		return 0;
	}
	uint64_t value;
	if (parse_digits(pax->text + record->value.offset, record->value.size, &value) < 0 || value > limit)
		return bad_value(error, record);
	*number = (TarPaxNumber){ .state = TAR_PAX_SET, .value = value };
	return 0;
}

/* Nanoseconds of the digits after the point; further ones are cut off. */
static int parse_fraction(const uint8_t *text, size_t size, uint32_t *ret_nsec)
{
	uint32_t nsec = 0;
	for (size_t i = 0; i < 9 || i < size; i++) {
		if (i < size && (text[i] < '0' || text[i] > '9'))
			return -EBADMSG;
		if (i < 9)
			nsec = 10 * nsec + (uint32_t)(i < size ? text[i] - '0' : 0);
	}
	*ret_nsec = nsec;
	return 0;
}

/* A time before 1970 is so many seconds back and nanoseconds forward, as in struct timespec. */
static int set_mtime(TarPax *pax, const Record *record, Error *error)
{
	const uint8_t *text = pax->text + record->value.offset;
	size_t size = record->value.size;
	if (size == 0) {
		pax->mtime = TAR_PAX_REMOVED;
		return 0;
	}
	bool negative = text[0] == '-';
	text += negative;
	size -= negative;
	const uint8_t *point = memchr(text, '.', size);
	size_t whole = point ? (size_t)(point - text) : size;
	uint64_t seconds;
	uint32_t nsec = 0;
	if (parse_digits(text, whole, &seconds) < 0 || seconds > INT64_MAX - 1 ||
	    (point && parse_fraction(point + 1, size - whole - 1, &nsec) < 0))
		return bad_value(error, record);
	pax->mtime = TAR_PAX_SET;
	pax->mtime_sec = (int64_t)seconds;
	pax->mtime_nsec = nsec;
	if (negative) {
		pax->mtime_sec = -(int64_t)seconds - (nsec > 0);
		pax->mtime_nsec = nsec > 0 ? 1000000000 - nsec : 0;
	}
	return 0;
}

static bool same_text(const TarPax *left, TarPaxText left_text, const TarPax *right, TarPaxText right_text)
{
	return left_text.size == right_text.size &&
	       memcmp(left->text + left_text.offset, right->text + right_text.offset, left_text.size) == 0;
}

static TarPaxXattr *find_xattr(const TarPax *pax, const TarPax *other, TarPaxText name)
{
	for (size_t i = 0; i < pax->xattr_count; i++) {
		if (same_text(pax, pax->xattrs[i].name, other, name))
			return &pax->xattrs[i];
	}
	return NULL;
}

static int append_xattr(TarPax *pax, TarPaxText name, TarPaxText value, Error *error)
{
	if (pax->xattr_count == TAR_XATTRS_MAX)
		return error_set(error, -EOPNOTSUPP, "more than %u extended attributes", TAR_XATTRS_MAX);
	/* Grown at powers of two. */
	if ((pax->xattr_count & (pax->xattr_count - 1)) == 0) {
		size_t capacity = pax->xattr_count ? 2 * pax->xattr_count : 1;
		TarPaxXattr *xattrs = reallocarray(pax->xattrs, capacity, sizeof(*xattrs));
		if (!xattrs)
			return -ENOMEM;
		pax->xattrs = xattrs;
	}
	pax->xattrs[pax->xattr_count++] = (TarPaxXattr){ .name = name, .value = value };
	return 0;
}

static int set_xattr(TarPax *pax, const Record *record, TarPaxText name, TarPaxText value, Error *error)
{
	if (name.size == 0 || memchr(pax->text + name.offset, '\0', name.size))
		return error_set(error, -EBADMSG, "the name in pax record %.80s is malformed", record->key);
	if (name.size > FORMAT_XATTR_NAME_MAX || value.size > FORMAT_XATTR_VALUE_MAX)
		return error_set(error, -EOPNOTSUPP,
				 "the extended attribute of pax record %.80s is larger than Linux allows", record->key);
	TarPaxXattr *known = find_xattr(pax, pax, name);
	if (!known)
		return append_xattr(pax, name, value, error);
	known->value = value;
	return 0;
}

static int hex_digit(uint8_t digit)
{
	if (digit >= '0' && digit <= '9')
		return digit - '0';
	digit |= 0x20;
	return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

/* Decodes %XX in place, as libarchive encodes names of xattrs. */
static size_t decode_percent(uint8_t *text, size_t size)
{
	size_t to = 0;
	for (size_t from = 0; from < size; from++, to++) {
		text[to] = text[from];
		if (text[from] != '%' || size - from < 3)
			continue;
		int high = hex_digit(text[from + 1]), low = hex_digit(text[from + 2]);
		if (high >= 0 && low >= 0) {
			text[to] = (uint8_t)(high << 4 | low);
			from += 2;
		}
	}
	return to;
}

static int base64_digit(uint8_t digit)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *found = digit ? strchr(digits, digit) : NULL;
	return found ? (int)(found - digits) : -1;
}

/* Decodes in place; libarchive writes no padding, others may. */
static int decode_base64(uint8_t *text, size_t size, size_t *ret_size)
{
	uint32_t bits = 0;
	unsigned held = 0;
	size_t to = 0;
	while (size > 0 && text[size - 1] == '=')
		size--;
	for (size_t from = 0; from < size; from++) {
		int digit = base64_digit(text[from]);
		if (digit < 0)
			return -EBADMSG;
		bits = (bits << 6 | (uint32_t)digit) & 0xffffff;
		held += 6;
		if (held >= 8) {
			held -= 8;
			text[to++] = (uint8_t)(bits >> held);
		}
	}
	*ret_size = to;
	return 0;
}

static int set_libarchive_xattr(TarPax *pax, const Record *record, TarPaxText name, Error *error)
{
	TarPaxText value = record->value;
	if (decode_base64(pax->text + value.offset, value.size, &value.size) < 0)
		return bad_value(error, record);
	name.size = decode_percent(pax->text + name.offset, name.size);
	return set_xattr(pax, record, name, value, error);
}

/* GNU.sparse.map: offset and length of each extent, all between commas. */
static int set_sparse_map(TarPax *pax, const Record *record, Error *error)
{
	const uint8_t *at = pax->text + record->value.offset, *end = at + record->value.size;
	uint64_t numbers[2];
	unsigned count = 0;
	pax->map.count = 0;
	pax->has_map = true;
	while (at < end) {
		const uint8_t *comma = memchr(at, ',', (size_t)(end - at)) ?: end;
		if (parse_digits(at, (size_t)(comma - at), &numbers[count % 2]) < 0)
			return bad_value(error, record);
		if (count++ % 2 == 1) {
			int r = tar_map_add(&pax->map, numbers[0], numbers[1], error);
			if (r < 0)
				return r;
		}
		at = comma < end ? comma + 1 : end;
	}
	return count % 2 == 0 ? 0 : bad_value(error, record);
}

/* GNU.sparse.offset and GNU.sparse.numbytes, which come in pairs. */
static int set_sparse_extent(TarPax *pax, const Record *record, bool length, Error *error)
{
	TarPaxNumber number = { 0 };
	int r = set_number(pax, record, &number, INT64_MAX, error);
	if (r < 0)
		return r;
	if (number.state != TAR_PAX_SET || length != pax->half_extent)
		return bad_value(error, record);
	pax->has_map = true;
	pax->half_extent = !length;
	if (length)
		return tar_map_add(&pax->map, pax->extent_offset, number.value, error);
	pax->extent_offset = number.value;
	return 0;
}

static int set_sparse(TarPax *pax, const Record *record, Error *error)
{
	const char *key = record->key + strlen("GNU.sparse.");
	if (strcmp(key, "name") == 0)
		return set_text(pax, record, &pax->sparse_name, error);
	if (strcmp(key, "major") == 0)
		return set_number(pax, record, &pax->sparse_major, INT64_MAX, error);
	if (strcmp(key, "minor") == 0)
		return set_number(pax, record, &pax->sparse_minor, INT64_MAX, error);
	if (strcmp(key, "size") == 0 || strcmp(key, "realsize") == 0)
		return set_number(pax, record, &pax->sparse_size, INT64_MAX, error);
	if (strcmp(key, "map") == 0)
		return set_sparse_map(pax, record, error);
	if (strcmp(key, "offset") == 0 || strcmp(key, "numbytes") == 0)
		return set_sparse_extent(pax, record, key[0] == 'n', error);
	return 0;
}

/* The part of the key after `prefix`, if it starts with that. */
static bool key_after(const TarPax *pax, const Record *record, const char *prefix, TarPaxText *ret_rest)
{
	size_t length = strlen(prefix);
	if (record->key_size < length || memcmp(record->key, prefix, length) != 0)
		return false;
	size_t offset = (size_t)((const uint8_t *)record->key - pax->text) + length;
	*ret_rest = (TarPaxText){ .state = TAR_PAX_SET, .offset = offset, .size = record->key_size - length };
	return true;
}

/* Takes one record into account; `ret_kept` says whether something points into its text now. */
static int apply_record(TarPax *pax, const Record *record, bool *ret_kept, Error *error)
{
	const char *key = record->key;
	TarPaxText rest;
	*ret_kept = true;
	if (strcmp(key, "path") == 0)
		return set_text(pax, record, &pax->path, error);
	if (strcmp(key, "linkpath") == 0)
		return set_text(pax, record, &pax->linkpath, error);
	if (strcmp(key, "SCHILY.acl.access") == 0)
		return set_text(pax, record, &pax->acl_access, error);
	if (strcmp(key, "SCHILY.acl.default") == 0)
		return set_text(pax, record, &pax->acl_default, error);
	if (key_after(pax, record, "SCHILY.xattr.", &rest))
		return set_xattr(pax, record, rest, record->value, error);
	if (key_after(pax, record, "LIBARCHIVE.xattr.", &rest))
		return set_libarchive_xattr(pax, record, rest, error);
	if (key_after(pax, record, "GNU.sparse.", &rest))
		return set_sparse(pax, record, error);
	*ret_kept = false;
	if (strcmp(key, "size") == 0)
		return set_number(pax, record, &pax->size, INT64_MAX, error);
	if (strcmp(key, "uid") == 0)
		return set_number(pax, record, &pax->uid, UINT32_MAX, error);
	if (strcmp(key, "gid") == 0)
		return set_number(pax, record, &pax->gid, UINT32_MAX, error);
	if (strcmp(key, "mtime") == 0)
		return set_mtime(pax, record, error);
	if (strcmp(key, "SCHILY.devmajor") == 0)
		return set_number(pax, record, &pax->device_major, UINT32_MAX, error);
	if (strcmp(key, "SCHILY.devminor") == 0)
		return set_number(pax, record, &pax->device_minor, UINT32_MAX, error);
	return 0;
}

/* "LENGTH KEY=VALUE\n", LENGTH being that of the whole record in decimal. Puts a NUL in place of the "=". */
static int split_record(TarPax *pax, size_t at, Record *ret_record, size_t *ret_size, Error *error)
{
	uint8_t *start = pax->text + at;
	size_t left = pax->text_size - at;
	uint8_t *space = memchr(start, ' ', left < 21 ? left : 21);
	uint64_t size;
	if (!space || parse_digits(start, (size_t)(space - start), &size) < 0 || size > left)
		return error_set(error, -EBADMSG, "a pax record's length is malformed");
	uint8_t *key = space + 1, *end = start + size - 1;
	if (key >= end || *end != '\n')
		return error_set(error, -EBADMSG, "a pax record does not end where its length says");
	uint8_t *equals = memchr(key, '=', (size_t)(end - key));
	if (!equals || equals == key || memchr(key, '\0', (size_t)(equals - key)))
		return error_set(error, -EBADMSG, "a pax record has no key");
	*equals = '\0';
	*ret_record = (Record){
		.key = (const char *)key,
		.key_size = (size_t)(equals - key),
		.value = { .offset = (size_t)(equals + 1 - pax->text), .size = (size_t)(end - equals - 1) },
	};
	*ret_size = size;
	return 0;
}

int tar_pax_add(TarPax *pax, const uint8_t *records, size_t size, Error *error)
{
	size_t at = pax->text_size;
	bool any_kept = false;
	if (size == 0)
		return 0;
	if (size > TAR_PAX_MAX - at)
		return error_set(error, -EOPNOTSUPP, "pax records of more than %u bytes", TAR_PAX_MAX);
	uint8_t *text = realloc(pax->text, at + size);
	if (!text)
		return -ENOMEM;
	pax->text = text;
	memcpy(text + at, records, size);
	pax->text_size = at + size;
	for (size_t next = at, length = 0; next < pax->text_size; next += length) {
		Record record = { 0 };
		bool kept = false;
		int r = split_record(pax, next, &record, &length, error);
		if (r == 0)
			r = apply_record(pax, &record, &kept, error);
		if (r < 0)
			return r;
		any_kept = any_kept || kept;
	}
	/* Comments and numbers leave nothing to point at: any number of such global headers fits. */
	if (!any_kept)
		pax->text_size = at;
	return 0;
}

static void inherit_number(TarPaxNumber *above, const TarPaxNumber *below)
{
	if (above->state == TAR_PAX_ABSENT)
		*above = *below;
}

/* A text of `below`, copied behind the text of `above`, where there is room for it already. */
static TarPaxText copy_text(TarPax *above, const TarPax *below, TarPaxText text)
{
	TarPaxText copy = { .state = text.state, .offset = above->text_size, .size = text.size };
	memcpy(above->text + above->text_size, below->text + text.offset, text.size);
	above->text_size += text.size;
	return copy;
}

static void inherit_text(TarPax *above, const TarPax *below, TarPaxText *text, TarPaxText from)
{
	if (text->state == TAR_PAX_ABSENT && from.state == TAR_PAX_SET)
		*text = copy_text(above, below, from);
}

static int inherit_xattrs(TarPax *above, const TarPax *below, Error *error)
{
	size_t own = above->xattr_count;
	for (size_t i = 0; i < below->xattr_count; i++) {
		const TarPaxXattr *xattr = &below->xattrs[i];
		if (own > 0 && find_xattr(above, below, xattr->name))
			continue;
		TarPaxText name = copy_text(above, below, xattr->name), value = copy_text(above, below, xattr->value);
		int r = append_xattr(above, name, value, error);
		if (r < 0)
			return r;
	}
	return 0;
}

int tar_pax_inherit(TarPax *above, const TarPax *below, Error *error)
{
	inherit_number(&above->size, &below->size);
	inherit_number(&above->uid, &below->uid);
	inherit_number(&above->gid, &below->gid);
	inherit_number(&above->device_major, &below->device_major);
	inherit_number(&above->device_minor, &below->device_minor);
	if (above->mtime == TAR_PAX_ABSENT) {
		above->mtime = below->mtime;
		above->mtime_sec = below->mtime_sec;
		above->mtime_nsec = below->mtime_nsec;
	}
	if (below->text_size == 0)
		return 0;
	/* Every text of `below` is copied at most once, so that its whole size is room enough. */
	uint8_t *text = realloc(above->text, above->text_size + below->text_size);
	if (!text)
		return -ENOMEM;
	above->text = text;
	inherit_text(above, below, &above->path, below->path);
	inherit_text(above, below, &above->linkpath, below->linkpath);
	inherit_text(above, below, &above->acl_access, below->acl_access);
	inherit_text(above, below, &above->acl_default, below->acl_default);
	return inherit_xattrs(above, below, error);
}
