#include "tools/image/image-members.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#define LINKS_MAX 8

static void member_free(ImageMember *member)
{
	free(member->name);
	free(member->link);
	free(member->data);
	free(member);
}

void image_members_done(ImageMembers *members)
{
	ImageMember *member, *next;
	HASH_ITER(hh, members->table, member, next)
	{
		HASH_DEL(members->table, member);
		member_free(member);
	}
}

/*
 * Resolves "." and ".." in `directory`/`path`, by name alone: nothing here touches a file system. A path that leaves the archive
 * stays at its top, as it would in a root directory.
 */
static int normalise(const char *directory, size_t directory_length, const char *path, char ret_path[static PATH_MAX])
{
	char whole[PATH_MAX];
	size_t used = 0;
	int length = snprintf(whole, sizeof(whole), "%.*s/%s", (int)directory_length, directory, path);
	if (length < 0 || (size_t)length >= sizeof(whole))
		return -ENAMETOOLONG;
	for (const char *part = whole; *part;) {
		size_t size = strcspn(part, "/");
		if (size == 2 && memcmp(part, "..", 2) == 0) {
			while (used > 0 && ret_path[--used] != '/')
				;
		} else if (size > 0 && !(size == 1 && *part == '.')) {
			if (used > 0)
				ret_path[used++] = '/';
			memcpy(ret_path + used, part, size);
			used += size;
		}
		part += size;
		part += *part == '/';
	}
	ret_path[used] = '\0';
	return 0;
}

static int set_link(ImageMember *member, const TarEntry *entry)
{
	char path[PATH_MAX];
	const char *slash = strrchr(member->name, '/');
	/* A symlink starts at its own directory, a hard link at the top of the archive. */
	size_t directory_length = entry->typeflag == '2' && slash ? (size_t)(slash - member->name) : 0;
	if (normalise(member->name, directory_length, entry->target, path) < 0)
		return -ENAMETOOLONG;
	member->link = strdup(path);
	return member->link ? 0 : -ENOMEM;
}

static int make_member(const TarEntry *entry, ImageMember **ret_member)
{
	char path[PATH_MAX];
	int r = normalise("", 0, entry->name, path);
	if (r < 0)
		return r;
	ImageMember *member = calloc(1, sizeof(*member));
	if (!member)
		return -ENOMEM;
	member->name = strdup(path);
	member->offset = entry->data_offset;
	member->size = entry->data_size;
	r = member->name ? 0 : -ENOMEM;
	if (r == 0 && (entry->typeflag == '1' || entry->typeflag == '2'))
		r = set_link(member, entry);
	if (r < 0) {
		member_free(member);
		return r;
	}
	*ret_member = member;
	return 0;
}

int image_members_add(ImageMembers *members, const TarEntry *entry, ImageMember **ret_member, Error *error)
{
	ImageMember *member, *old;
	if (HASH_COUNT(members->table) >= IMAGE_MEMBERS_MAX)
		return error_set(error, -EFBIG,
				 "there are more than %u members, in an image archive there are hundreds",
				 IMAGE_MEMBERS_MAX);
	int r = make_member(entry, &member);
	if (r < 0)
		return error_set(error, r, "member %.200s: %s", entry->name, error_text(NULL, r));
	HASH_FIND_STR(members->table, member->name, old);
	if (old) {
		HASH_DEL(members->table, old);
		member_free(old);
	}
	HASH_ADD_KEYPTR(hh, members->table, member->name, strlen(member->name), member);
	*ret_member = member;
	return 0;
}

int image_members_find(const ImageMembers *members, const char *name, ImageMember **ret_member, Error *error)
{
	char path[PATH_MAX];
	const char *wanted = path;
	ImageMember *member = NULL;
	if (normalise("", 0, name, path) < 0)
		return error_set(error, -ENOENT, "%.200s... is too long for a member's name", name);
	for (int i = 0; i < LINKS_MAX; i++) {
		HASH_FIND_STR(members->table, wanted, member);
		if (!member || !member->link)
			break;
		wanted = member->link;
	}
	if (!member || member->link)
		return error_set(error, -ENOENT, "it does not hold %s%s%s", name, wanted != path ? ", a link to " : "",
				 wanted != path ? wanted : "");
	*ret_member = member;
	return 0;
}

int image_member_digest(const char *name, Digest *ret_digest)
{
	const char *slash = strrchr(name, '/');
	const char *last = slash ? slash + 1 : name;
	char hex[DIGEST_HEX_SIZE];
	if (strncmp(last, "sha256:", 7) == 0)
		last += 7;
	size_t length = strcspn(last, ".");
	bool suffix_good = !last[length] || strcmp(last + length, ".json") == 0 || strcmp(last + length, ".tar") == 0;
	if (length != DIGEST_HEX_SIZE - 1 || !suffix_good)
		return -EINVAL;
	memcpy(hex, last, length);
	hex[length] = '\0';
	return digest_from_hex(hex, ret_digest);
}
