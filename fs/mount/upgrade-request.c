#include "fs/mount/upgrade-request.h"

#include <errno.h>
#include <string.h>

#include "fs/mount/arguments.h"

#define MAGIC  "imgfs-upgrade-1"
#define FIELDS 4u

/* Four strings, each with its NUL. */
ssize_t upgrade_request_write(const UpgradeRequest *request, char ret_bytes[static UPGRADE_REQUEST_MAX])
{
	int size = snprintf(ret_bytes, UPGRADE_REQUEST_MAX, MAGIC "%c%d%c%s%c%s", '\0', request->reply_fd, '\0',
			    request->keeper, '\0', request->server);
	return size < UPGRADE_REQUEST_MAX ? size + 1 : -ENAMETOOLONG;
}

int upgrade_request_read(const char *bytes, size_t size, UpgradeRequest *ret_request)
{
	const char *fields[FIELDS];
	const char *at = bytes, *end = bytes + size;
	for (size_t i = 0; i < FIELDS; i++) {
		const char *nul = at < end ? memchr(at, '\0', (size_t)(end - at)) : NULL;
		if (!nul)
			return -EBADMSG;
		fields[i] = at;
		at = nul + 1;
	}
	long reply;
	if (at != end || strcmp(fields[0], MAGIC) != 0 || !argument_number(fields[1], INT_MAX, &reply) ||
	    fields[2][0] != '/' || fields[3][0] != '/')
		return -EBADMSG;
	*ret_request = (UpgradeRequest){ .reply_fd = (int)reply, .keeper = fields[2], .server = fields[3] };
	return 0;
}
