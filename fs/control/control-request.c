#include "fs/control/control-request.h"

#include <errno.h>
#include <string.h>

#define TEXT_MAX  4096u
#define OWNER_MAX 1024u

#define ON(verb) (1u << CONTROL_##verb)

static const char *const verb_names[CONTROL_VERBS] = {
	[CONTROL_ATTACH] = "attach",   [CONTROL_DETACH] = "detach", [CONTROL_PULL] = "pull",
	[CONTROL_PIN] = "pin",         [CONTROL_UNPIN] = "unpin",   [CONTROL_STATUS] = "status",
	[CONTROL_LIST] = "list",       [CONTROL_RELOAD] = "reload", [CONTROL_PING] = "ping",
	[CONTROL_UPGRADE] = "upgrade", [CONTROL_END] = "end",
};

typedef enum FieldKind {
	FIELD_TEXT,
	FIELD_PATH,
	FIELD_TIME,
	FIELD_RATE,
	FIELD_SWITCH,
	FIELD_ACCESS,
	FIELD_LAYERS
} FieldKind;

/* Which calls know a key, and which cannot do without it. */
typedef struct Field {
	const char *name;
	FieldKind kind;
	size_t offset;
	unsigned known, needed;
} Field;

#define AT(member) offsetof(ControlRequest, member)

static const Field fields[] = {
	{ "owner", FIELD_TEXT, AT(owner), ON(ATTACH) | ON(DETACH), ON(ATTACH) | ON(DETACH) },
	{ "reference", FIELD_TEXT, AT(reference), ON(ATTACH) | ON(PULL) | ON(PIN) | ON(UNPIN),
	  ON(PULL) | ON(PIN) | ON(UNPIN) },
	{ "directory", FIELD_PATH, AT(directory), ON(ATTACH), 0 },
	{ "store", FIELD_PATH, AT(store), ON(ATTACH), 0 },
	{ "after", FIELD_TEXT, AT(after), ON(LIST), 0 },
	{ "deadline", FIELD_TIME, AT(deadline), ON(ATTACH), 0 },
	{ "timeout", FIELD_TIME, AT(timeout), ON(ATTACH) | ON(PULL) | ON(PIN), 0 },
	{ "plain_http", FIELD_SWITCH, AT(plain_http), ON(ATTACH) | ON(PULL) | ON(PIN), 0 },
	{ "noexec", FIELD_SWITCH, AT(noexec), ON(ATTACH), 0 },
	{ "no_fill", FIELD_SWITCH, AT(no_fill), ON(ATTACH), 0 },
	{ "decoded", FIELD_SWITCH, AT(decoded), ON(ATTACH), 0 },
	{ "fill_rate", FIELD_RATE, AT(fill_rate), ON(ATTACH), 0 },
	{ "seal", FIELD_SWITCH, AT(seal), ON(PULL), 0 },
	{ "lazy", FIELD_SWITCH, AT(lazy), ON(DETACH), 0 },
	{ "access", FIELD_ACCESS, AT(access), ON(ATTACH) | ON(PULL) | ON(PIN), 0 },
	{ "layers", FIELD_LAYERS, AT(layers), ON(ATTACH), 0 },
};

const char *control_verb_name(ControlVerb verb)
{
	return verb_names[verb];
}

void control_request_done(ControlRequest *request)
{
	json_decref(request->json);
	free(request->layers);
	*request = (ControlRequest){ 0 };
}

static int wrong(Error *error, const char *key, const char *what)
{
	return error_set(error, -EINVAL, "\"%.64s\" of the request: %s", key, what);
}

/* Texts end up in files, logs and paths: no control characters, no end in the middle. */
static int read_text(const json_t *value, const char *key, const char **ret_text, Error *error)
{
	const char *text = json_string_value(value);
	size_t length = json_string_length(value);
	if (!text || length == 0 || length > TEXT_MAX || strlen(text) != length)
		return wrong(error, key, "a text of 1 to 4096 bytes is wanted");
	for (const char *byte = text; *byte; byte++)
		if ((unsigned char)*byte < 0x20 || *byte == 0x7f)
			return wrong(error, key, "it has a control character");
	*ret_text = text;
	return 0;
}

static int read_access(const json_t *value, ControlAccess *ret_access, Error *error)
{
	static const struct {
		const char *name;
		size_t offset;
	} members[] = {
		{ "certs", offsetof(ControlAccess, certs) },
		{ "login", offsetof(ControlAccess, login) },
		{ "user", offsetof(ControlAccess, user) },
		{ "ca", offsetof(ControlAccess, ca) },
		{ "certificate", offsetof(ControlAccess, certificate) },
		{ "key", offsetof(ControlAccess, key) },
	};
	if (!json_is_object(value))
		return wrong(error, "access", "an object is wanted");
	size_t known = 0;
	for (size_t i = 0; i < ELEMENTS(members); i++) {
		const json_t *member = json_object_get(value, members[i].name);
		if (!member)
			continue;
		known++;
		int r = read_text(member, members[i].name, (const char **)((char *)ret_access + members[i].offset),
				  error);
		if (r < 0)
			return r;
	}
	return known == json_object_size(value) ? 0 : wrong(error, "access", "it has a key that is not known");
}

static int read_digest(const json_t *layer, const char *key, Digest *ret_digest, Error *error)
{
	const char *text = json_string_value(json_object_get(layer, key));
	return text && digest_from_text(text, ret_digest) == 0 ? 0
							       : wrong(error, key, "a digest (sha256:...) is wanted");
}

static int read_size(const json_t *layer, const char *key, bool needed, uint64_t *ret_size, Error *error)
{
	const json_t *value = json_object_get(layer, key);
	if (!value && !needed)
		return 0;
	if (!json_is_integer(value) || json_integer_value(value) < 0)
		return wrong(error, key, "a number of bytes is wanted");
	*ret_size = (uint64_t)json_integer_value(value);
	return 0;
}

static int read_layer(const json_t *value, ControlLayer *layer, Error *error)
{
	if (!json_is_object(value) || json_object_size(value) != 6u + (json_object_get(value, "size") != NULL))
		return wrong(error, "layers",
			     "a layer has diffId, blob, blobSize, index, indexOffset, indexSize, and may have size");
	int r = read_digest(value, "diffId", &layer->diff_id, error);
	if (r == 0)
		r = read_digest(value, "blob", &layer->blob, error);
	if (r == 0)
		r = read_digest(value, "index", &layer->index, error);
	if (r == 0)
		r = read_size(value, "size", false, &layer->size, error);
	if (r == 0)
		r = read_size(value, "blobSize", true, &layer->blob_size, error);
	if (r == 0)
		r = read_size(value, "indexOffset", true, &layer->index_offset, error);
	if (r == 0)
		r = read_size(value, "indexSize", true, &layer->index_size, error);
	return r;
}

static int read_layers(const json_t *value, ControlRequest *request, Error *error)
{
	size_t count = json_array_size(value);
	if (count == 0 || count > CONTROL_LAYERS_MAX)
		return wrong(error, "layers", "a list of 1 to 1024 layers is wanted");
	request->layers = calloc(count, sizeof(*request->layers));
	if (!request->layers)
		return error_set(error, -ENOMEM, "out of memory");
	for (; request->layer_count < count; request->layer_count++) {
		int r = read_layer(json_array_get(value, request->layer_count), &request->layers[request->layer_count],
				   error);
		if (r < 0)
			return r;
	}
	return 0;
}

static int read_time(const json_t *value, const char *key, int64_t *ret_time, Error *error)
{
	if (!json_is_integer(value) || json_integer_value(value) < 1 || json_integer_value(value) > CONTROL_TIME_MAX)
		return wrong(error, key, "milliseconds, 1 to 86400000, are wanted");
	*ret_time = json_integer_value(value);
	return 0;
}

static int read_rate(const json_t *value, const char *key, int64_t *ret_rate, Error *error)
{
	if (!json_is_integer(value) || json_integer_value(value) < CONTROL_RATE_MIN)
		return wrong(error, key, "bytes a second, 1024 or more, are wanted");
	*ret_rate = json_integer_value(value);
	return 0;
}

static int read_field(const Field *field, const json_t *value, ControlRequest *request, Error *error)
{
	void *at = (char *)request + field->offset;
	const char **text = at;
	int r;
	switch (field->kind) {
	case FIELD_TEXT:
		return read_text(value, field->name, text, error);
	case FIELD_PATH:
		r = read_text(value, field->name, text, error);
		return r == 0 && (*text)[0] != '/' ? wrong(error, field->name, "an absolute path is wanted") : r;
	case FIELD_TIME:
		return read_time(value, field->name, at, error);
	case FIELD_RATE:
		return read_rate(value, field->name, at, error);
	case FIELD_SWITCH:
		*(bool *)at = json_is_true(value);
		return json_is_boolean(value) ? 0 : wrong(error, field->name, "true or false is wanted");
	case FIELD_ACCESS:
		return read_access(value, at, error);
	case FIELD_LAYERS:
		return read_layers(value, request, error);
	}
	return -EINVAL;
}

static const Field *find_field(const char *key, unsigned verb)
{
	for (size_t i = 0; i < ELEMENTS(fields); i++)
		if (fields[i].known & verb && strcmp(fields[i].name, key) == 0)
			return &fields[i];
	return NULL;
}

static int read_fields(ControlRequest *request, Error *error)
{
	unsigned verb = 1u << request->verb;
	const char *key;
	json_t *value;
	json_object_foreach(request->json, key, value)
	{
		if (strcmp(key, "call") == 0)
			continue;
		const Field *field = find_field(key, verb);
		int r = field ? read_field(field, value, request, error)
			      : wrong(error, key, "this call knows no such key");
		if (r < 0)
			return r;
	}
	for (size_t i = 0; i < ELEMENTS(fields); i++)
		if (fields[i].needed & verb && !json_object_get(request->json, fields[i].name))
			return wrong(error, fields[i].name, "it is missing");
	return 0;
}

static int find_verb(ControlRequest *request, Error *error)
{
	const char *name = json_string_value(json_object_get(request->json, "call"));
	if (!name)
		return wrong(error, "call", "it is missing");
	for (int verb = 0; verb < CONTROL_VERBS; verb++) {
		if (strcmp(verb_names[verb], name) == 0) {
			request->verb = (ControlVerb)verb;
			return 0;
		}
	}
	return error_set(error, -ENOSYS, "there is no call \"%.64s\"", name);
}

/* What no single key can say. */
static int check(const ControlRequest *request, Error *error)
{
	if (request->owner && strlen(request->owner) > OWNER_MAX)
		return wrong(error, "owner", "it is longer than 1024 bytes");
	if (request->verb != CONTROL_ATTACH)
		return 0;
	if (!request->reference && !request->layers)
		return wrong(error, "reference", "it is missing, and so are the layers");
	if (request->store && request->layers)
		return wrong(error, "layers", "a store is asked for a reference, not for layers");
	if (!request->access.certificate != !request->access.key)
		return wrong(error, "access", "certificate and key go together");
	return 0;
}

int control_request_parse(json_t *json, ControlRequest *ret_request, Error *error)
{
	_cleanup_(control_request_done) ControlRequest request = { .json = json };
	int r = find_verb(&request, error);
	if (r == 0)
		r = read_fields(&request, error);
	if (r == 0)
		r = check(&request, error);
	if (r < 0)
		return r;
	*ret_request = request;
	request = (ControlRequest){ 0 };
	return 0;
}
