#include <inttypes.h>
#include <string.h>

#include "tools/export/tar-acl.h"
#include "tools/export/tar-reader-internal.h"

static bool is_regular(const TarEntry *entry)
{
	return entry->typeflag == '0';
}

static bool has_target(const TarEntry *entry)
{
	return entry->typeflag == '1' || entry->typeflag == '2';
}

/* A path that can be made below a directory without leaving it. What a ".." means, every unpacker decides for itself. */
static int check_path(const char *path, size_t size, const char *what, Error *error)
{
	if (size == 0)
		return error_set(error, -EBADMSG, "an empty %s", what);
	for (size_t at = 0; at < size;) {
		size_t length = strcspn(path + at, "/");
		if (length == 2 && memcmp(path + at, "..", 2) == 0)
			return error_set(error, -EOPNOTSUPP, "a \"..\" in %s %.100s", what, path);
		if (length > FORMAT_NAME_MAX)
			return error_set(error, -EOPNOTSUPP, "a component of more than %u bytes in %s %.100s",
					 FORMAT_NAME_MAX, what, path);
		at += length + 1;
	}
	return 0;
}

static int copy_path(char *to, size_t *ret_size, const char *path, size_t size, const char *what, Error *error)
{
	if (size > FORMAT_TARGET_MAX)
		return error_set(error, -EOPNOTSUPP, "a %s of more than %u bytes, %.100s", what, FORMAT_TARGET_MAX,
				 path);
	memcpy(to, path, size);
	to[size] = '\0';
	*ret_size = size;
	return 0;
}

/* The last word on a path: pax, GNU's long one, the header's. */
static int choose_path(const TarPax *pax, TarPaxText from_pax, const char *long_path, const char *path, char *to,
		       size_t *ret_size, const char *what, Error *error)
{
	if (from_pax.state == TAR_PAX_SET)
		return copy_path(to, ret_size, (const char *)pax->text + from_pax.offset, from_pax.size, what, error);
	if (long_path)
		path = long_path;
	return copy_path(to, ret_size, path, strlen(path), what, error);
}

static int set_paths(TarReader *reader, bool sparse, Error *error)
{
	const TarPax *pax = &reader->local;
	TarEntry *entry = &reader->entry;
	TarPaxText path = sparse && pax->sparse_name.state == TAR_PAX_SET ? pax->sparse_name : pax->path;
	int r = choose_path(pax, path, reader->long_name, reader->header.name, reader->name, &entry->name_size, "name",
			    error);
	if (r == 0)
		r = check_path(reader->name, entry->name_size, "name", error);
	entry->name = reader->name;
	entry->target = reader->target;
	reader->target[0] = '\0';
	if (r < 0 || !has_target(entry))
		return r;
	r = choose_path(pax, pax->linkpath, reader->long_target, reader->header.target, reader->target,
			&entry->target_size, "link target", error);
	if (r < 0)
		return r;
	if (entry->typeflag == '1') {
		r = check_path(reader->target, entry->target_size, "link target", error);
		return r < 0 ? error_prefix(error, r, "hard link %.100s", entry->name) : 0;
	}
	if (entry->target_size == 0)
		return error_set(error, -EBADMSG, "symlink %.100s has no target", entry->name);
	return 0;
}

static uint32_t number32(const TarPaxNumber *number, uint32_t otherwise)
{
	return number->state == TAR_PAX_SET ? (uint32_t)number->value : otherwise;
}

static void set_metadata(TarReader *reader)
{
	const TarPax *pax = &reader->local;
	const TarHeader *header = &reader->header;
	TarEntry *entry = &reader->entry;
	entry->mode = header->mode;
	entry->uid = number32(&pax->uid, header->uid);
	entry->gid = number32(&pax->gid, header->gid);
	entry->mtime_sec = pax->mtime == TAR_PAX_SET ? pax->mtime_sec : header->mtime;
	entry->mtime_nsec = pax->mtime == TAR_PAX_SET ? pax->mtime_nsec : 0;
	if (entry->typeflag == '3' || entry->typeflag == '4') {
		entry->device_major = number32(&pax->device_major, header->device_major);
		entry->device_minor = number32(&pax->device_minor, header->device_minor);
	}
}

static bool has_xattr(const TarEntry *entry, const char *name)
{
	for (size_t i = 0; i < entry->xattr_count; i++) {
		if (entry->xattrs[i].name.size == strlen(name) &&
		    memcmp(entry->xattrs[i].name.data, name, entry->xattrs[i].name.size) == 0)
			return true;
	}
	return false;
}

/* Adds the xattr of an ACL, for which there is room; one given as xattr is exact and stays. */
static int add_acl(TarReader *reader, TarPaxText text, bool default_list, Error *error)
{
	static const char *const names[] = { "system.posix_acl_access", "system.posix_acl_default" };
	const TarPax *pax = &reader->local;
	TarEntry *entry = &reader->entry;
	const char *name = names[default_list];
	Buffer *value = &reader->acls[default_list];
	/* A symlink has no ACL, and only a directory a default one. */
	if (text.state != TAR_PAX_SET || entry->typeflag == '2' || (default_list && entry->typeflag != '5') ||
	    has_xattr(entry, name))
		return 0;
	value->size = 0;
	int r = tar_acl_encode((const char *)pax->text + text.offset, text.size, default_list ? NULL : &entry->mode,
			       value, error);
	if (r < 0 || value->size == 0)
		return r;
	reader->xattrs[entry->xattr_count++] = (TreeXattr){
		.name = { .data = name, .size = strlen(name) },
		.value = { .data = (const char *)value->data, .size = value->size },
	};
	return 0;
}

static int set_xattrs(TarReader *reader, Error *error)
{
	const TarPax *pax = &reader->local;
	free(reader->xattrs);
	reader->xattrs = NULL;
	if (pax->xattr_count == 0 && pax->acl_access.state != TAR_PAX_SET && pax->acl_default.state != TAR_PAX_SET)
		return 0;
	reader->xattrs = calloc(pax->xattr_count + ELEMENTS(reader->acls), sizeof(*reader->xattrs));
	if (!reader->xattrs)
		return -ENOMEM;
	for (size_t i = 0; i < pax->xattr_count; i++) {
		TarPaxText name = pax->xattrs[i].name, value = pax->xattrs[i].value;
		reader->xattrs[i] = (TreeXattr){
			.name = { .data = (const char *)pax->text + name.offset, .size = name.size },
			.value = { .data = (const char *)pax->text + value.offset, .size = value.size },
		};
	}
	reader->entry.xattrs = reader->xattrs;
	reader->entry.xattr_count = pax->xattr_count;
	int r = add_acl(reader, pax->acl_access, false, error);
	return r < 0 ? r : add_acl(reader, pax->acl_default, true, error);
}

/* Do the bytes of a hard link's size follow it? See tar_reader_feed(). */
static bool link_has_data(uint64_t size, const uint8_t *rest, size_t rest_size)
{
	if (rest_size >= TAR_BLOCK)
		return size > 0 && tar_block_kind(rest) == TAR_BLOCK_GARBAGE;
	return size > 0 && size == rest_size;
}

static bool is_pax_sparse(const TarPax *pax)
{
	return pax->sparse_major.state == TAR_PAX_SET || pax->has_map || pax->sparse_size.state == TAR_PAX_SET;
}

/* The map of a pax sparse file, or the preparation to read it from the data. */
static int set_pax_map(TarReader *reader, Error *error)
{
	TarPax *pax = &reader->local;
	TarEntry *entry = &reader->entry;
	uint64_t major = pax->sparse_major.state == TAR_PAX_SET ? pax->sparse_major.value : 0;
	uint64_t minor = pax->sparse_minor.state == TAR_PAX_SET ? pax->sparse_minor.value : 0;
	if (pax->sparse_size.state != TAR_PAX_SET || pax->half_extent || (major == 0 && !pax->has_map))
		return error_set(error, -EBADMSG, "sparse file %.100s has no whole map or no size", entry->name);
	if (major > 1 || minor > (major == 0 ? 1 : 0))
		return error_set(error, -EOPNOTSUPP, "sparse file %.100s is of unknown format %" PRIu64 ".%" PRIu64,
				 entry->name, major, minor);
	entry->sparse = true;
	entry->size = pax->sparse_size.value;
	if (major == 1) {
		reader->map_in_data = true;
		reader->map_text = (TarMapText){ 0 };
		if (entry->data_size == 0)
			return error_set(error, -EBADMSG, "sparse file %.100s has no map", entry->name);
		return 0;
	}
	int r = tar_map_finish(&pax->map, entry->size, entry->data_offset, entry->data_size, error);
	entry->extents = pax->map.extents;
	entry->extent_count = pax->map.count;
	return r;
}

static int set_old_map(TarReader *reader, Error *error)
{
	TarEntry *entry = &reader->entry;
	entry->sparse = true;
	entry->size = reader->map_size;
	int r = tar_map_finish(&reader->map, entry->size, entry->data_offset, entry->data_size, error);
	entry->extents = reader->map.extents;
	entry->extent_count = reader->map.count;
	return r;
}

static int set_type(TarReader *reader, Error *error)
{
	char typeflag = reader->header.typeflag;
	switch (typeflag) {
	case '0' ... '6':
		break;
	case '7':
	case '\0':
	case 'S':
		typeflag = '0';
		break;
	case 'M':
	case 'N':
	case 'V':
	case 'D':
		return error_set(error, -EOPNOTSUPP, "a header of a GNU multi-volume or incremental tar (type '%c')",
				 typeflag);
	default:
		return error_set(error, -EOPNOTSUPP, "a header of unknown type 0x%02x", (unsigned char)typeflag);
	}
	reader->entry.typeflag = typeflag;
	return 0;
}

static int set_data(TarReader *reader, const uint8_t *rest, size_t rest_size, Error *error)
{
	const TarPax *pax = &reader->local;
	TarEntry *entry = &reader->entry;
	uint64_t size = pax->size.state == TAR_PAX_SET ? pax->size.value : reader->header.size;
	if (is_regular(entry))
		entry->data_size = entry->size = size;
	else if (entry->typeflag == '1' && link_has_data(size, rest, rest_size))
		entry->data_size = size;
	if (entry->data_offset > TAR_SIZE_MAX || entry->data_size > TAR_SIZE_MAX - entry->data_offset)
		return error_set(error, -EBADMSG, "the size of %.100s is absurd", entry->name);
	if (reader->header.typeflag == 'S')
		return set_old_map(reader, error);
	return is_regular(entry) && is_pax_sparse(pax) ? set_pax_map(reader, error) : 0;
}

int tar_entry_build(TarReader *reader, uint64_t data_offset, const uint8_t *rest, size_t rest_size, Error *error)
{
	TarEntry *entry = &reader->entry;
	/* From here on a sentence names this entry, or none. */
	reader->has_entry = false;
	*entry = (TarEntry){ .header_offset = reader->header_offset, .data_offset = data_offset };
	reader->map_in_data = false;
	int r = tar_pax_inherit(&reader->local, &reader->global, error);
	if (r == 0)
		r = set_type(reader, error);
	if (r == 0)
		r = set_paths(reader, is_pax_sparse(&reader->local), error);
	if (r < 0)
		return r;
	reader->has_entry = true;
	/* The way v7 marks a directory. */
	if (reader->header.typeflag == '\0' && entry->name[entry->name_size - 1] == '/')
		entry->typeflag = '5';
	set_metadata(reader);
	r = set_xattrs(reader, error);
	if (r == 0)
		r = set_data(reader, rest, rest_size, error);
	return r;
}

int tar_entry_finish_map(TarReader *reader, Error *error)
{
	TarEntry *entry = &reader->entry;
	uint64_t map_size = (reader->map_text.size + TAR_BLOCK - 1) / TAR_BLOCK * TAR_BLOCK;
	if (!reader->map_text.complete || map_size > entry->data_size)
		return error_set(error, -EBADMSG, "the map in front of the data of %.100s is cut off", entry->name);
	int r = tar_map_finish(&reader->map, entry->size, entry->data_offset + map_size, entry->data_size - map_size,
			       error);
	if (r < 0)
		return r;
	reader->map_in_data = false;
	entry->extents = reader->map.extents;
	entry->extent_count = reader->map.count;
	return 0;
}
