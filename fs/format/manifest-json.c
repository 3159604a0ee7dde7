#include "fs/format/manifest-json.h"

#include <stdbool.h>
#include <string.h>

#include "fs/format/manifest.h"

int manifest_json_load(const char *json, size_t size, const char *what, json_t **ret_root, Error *error)
{
	if (size > MANIFEST_SIZE_MAX)
		return error_set(error, -EBADMSG, "the %s takes %zu bytes, more than the %u it may", what, size,
				 MANIFEST_SIZE_MAX);
	json_error_t fault;
	json_auto_t *root = json_loadb(json, size, JSON_REJECT_DUPLICATES, &fault);
	if (!root) {
		if (json_error_code(&fault) == json_error_out_of_memory)
			return -ENOMEM;
		return error_set(error, -EBADMSG, "the %s is not JSON (line %d: %s); the server sent something else",
				 what, fault.line, fault.text);
	}
	if (!json_is_object(root))
		return error_set(error, -EBADMSG, "the %s is not a JSON object; the server sent something else", what);
	*ret_root = json_incref(root);
	return 0;
}

static bool is_one_of(const char *text, const char *const *choices)
{
	for (; text && *choices; choices++)
		if (strcmp(text, *choices) == 0)
			return true;
	return false;
}

int manifest_json_descriptor(const json_t *descriptor, const char *what, const char *const *types, Digest *ret_digest,
			     uint64_t *ret_size, Error *error)
{
	if (!json_is_object(descriptor))
		return error_set(error, -EBADMSG, "the manifest has no object \"%s\"; it is not an image manifest",
				 what);
	const char *type = json_string_value(json_object_get(descriptor, "mediaType"));
	if (!is_one_of(type, types))
		return error_set(error, -EBADMSG, "%s of the manifest is of type \"%s\" instead of \"%s\"", what,
				 type ? type : "", types[0]);
	Digest digest;
	const char *text = json_string_value(json_object_get(descriptor, "digest"));
	if (!text || digest_from_text(text, &digest) < 0)
		return error_set(error, -EBADMSG, "%s of the manifest has no sha256 digest", what);
	const json_t *size = json_object_get(descriptor, "size");
	if (!json_is_integer(size) || json_integer_value(size) < 0)
		return error_set(error, -EBADMSG, "%s of the manifest has no size", what);
	*ret_digest = digest;
	*ret_size = (uint64_t)json_integer_value(size);
	return 0;
}
