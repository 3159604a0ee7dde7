/* The request of `imgfs upgrade`: what is taken is written again as the same bytes. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fs/mount/upgrade-request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	UpgradeRequest request;
	char again[UPGRADE_REQUEST_MAX];
	if (size > sizeof(again) || upgrade_request_read((const char *)data, size, &request) < 0)
		return 0;
	if (request.reply_fd < 0 || request.keeper[0] != '/' || request.server[0] != '/')
		abort();
	ssize_t written = upgrade_request_write(&request, again);
	/* Numbers have several forms, 007 say; paths have one. */
	if (written < 0 || (size_t)written > size)
		abort();
	size_t paths = strlen(request.keeper) + strlen(request.server) + 2;
	if (memcmp(again + written - paths, request.keeper, paths) != 0)
		abort();
	return 0;
}
