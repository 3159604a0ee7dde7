#include "fs/control/control-frame.h"

#include <errno.h>
#include <string.h>

#include "fs/base/bytes.h"

#define STEP      (64u << 10) /* by how much a body grows at most ahead of its bytes */
#define ERRNO_MAX 133

void control_reader_done(ControlReader *reader)
{
	free(reader->body);
	*reader = (ControlReader){ 0 };
}

size_t control_reader_wanted(const ControlReader *reader)
{
	if (reader->header_used < CONTROL_HEADER_SIZE)
		return CONTROL_HEADER_SIZE - reader->header_used;
	return load_le32(reader->header) - reader->body_used;
}

static int make_room(ControlReader *reader, size_t size)
{
	if (reader->body_used + size <= reader->body_room)
		return 0;
	size_t room = reader->body_used + size + (reader->body_used < STEP ? reader->body_used : STEP);
	uint8_t *body = realloc(reader->body, room);
	if (!body)
		return -ENOMEM;
	reader->body = body;
	reader->body_room = room;
	return 0;
}

int control_reader_feed(ControlReader *reader, const void *bytes, size_t size)
{
	if (size > control_reader_wanted(reader))
		return -EMSGSIZE;
	if (reader->header_used < CONTROL_HEADER_SIZE) {
		memcpy(reader->header + reader->header_used, bytes, size);
		reader->header_used += size;
		if (reader->header_used < CONTROL_HEADER_SIZE)
			return 0;
		uint32_t length = load_le32(reader->header);
		return length == 0 || length > CONTROL_FRAME_MAX ? -EMSGSIZE : 0;
	}
	int r = make_room(reader, size);
	if (r < 0)
		return r;
	memcpy(reader->body + reader->body_used, bytes, size);
	reader->body_used += size;
	return control_reader_wanted(reader) == 0;
}

int control_reader_take(ControlReader *reader, json_t **ret_json, Error *error)
{
	json_error_t fault;
	json_t *json = json_loadb((const char *)reader->body, reader->body_used, JSON_REJECT_DUPLICATES, &fault);
	control_reader_done(reader);
	if (!json)
		return error_set(error, -EBADMSG, "not JSON: %s", fault.text);
	if (!json_is_object(json)) {
		json_decref(json);
		return error_set(error, -EBADMSG, "not a JSON object");
	}
	*ret_json = json;
	return 0;
}

int control_reader_read(ControlReader *reader, int fd)
{
	uint8_t bytes[16384];
	size_t wanted = control_reader_wanted(reader);
	ssize_t count = read(fd, bytes, wanted < sizeof(bytes) ? wanted : sizeof(bytes));
	if (count < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	return count == 0 ? -ECONNRESET : control_reader_feed(reader, bytes, (size_t)count);
}

int control_frame_encode(const json_t *json, uint8_t **ret_bytes, size_t *ret_size)
{
	size_t size = json_dumpb(json, NULL, 0, JSON_COMPACT);
	if (size == 0)
		return -ENOMEM;
	if (size > CONTROL_FRAME_MAX)
		return -EMSGSIZE;
	uint8_t *bytes = malloc(CONTROL_HEADER_SIZE + size);
	if (!bytes)
		return -ENOMEM;
	store_le32(bytes, (uint32_t)size);
	if (json_dumpb(json, (char *)bytes + CONTROL_HEADER_SIZE, size, JSON_COMPACT) != size) {
		free(bytes);
		return -ENOMEM;
	}
	*ret_bytes = bytes;
	*ret_size = CONTROL_HEADER_SIZE + size;
	return 0;
}

int control_check_hello(const json_t *hello, Error *error)
{
	const json_t *version = json_object_get(hello, "imgfsd");
	if (!json_is_integer(version))
		return error_set(error, -EBADMSG, "the first frame does not say which version it speaks");
	if (json_integer_value(version) != CONTROL_VERSION)
		return error_set(error, -EPROTONOSUPPORT,
				 "one side speaks version %lld of the control protocol, the other %d; imgfs and imgfsd "
				 "have to be of one build",
				 (long long)json_integer_value(version), CONTROL_VERSION);
	return 0;
}

json_t *control_hello(void)
{
	return json_pack("{s:i}", "imgfsd", CONTROL_VERSION);
}

const char *control_code_name(int code)
{
	return strerrorname_np(code < 0 ? -code : code) ?: "EIO";
}

int control_code_of(const char *name)
{
	for (int code = 1; name && code <= ERRNO_MAX; code++) {
		const char *known = strerrorname_np(code);
		if (known && strcmp(known, name) == 0)
			return -code;
	}
	return -EIO;
}
