/* Files of users: whatever is taken has users with names and hashes, in order, each once. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tools/serve/htpasswd.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	Htpasswd htpasswd;
	Error error = { 0 };
	int r = htpasswd_parse((const char *)data, size, &htpasswd, &error);
	if (r < 0) {
		if (error.code != r || !error.message[0])
			abort();
		return 0;
	}
	if (htpasswd.count == 0)
		abort();
	for (size_t i = 0; i < htpasswd.count; i++) {
		const HtpasswdUser *user = &htpasswd.users[i];
		if (!user->name[0] || user->hash[0] != '$' || strlen(user->hash) < 20 ||
		    htpasswd_find(&htpasswd, user->name) != user || (i > 0 && strcmp(user[-1].name, user->name) >= 0))
			abort();
	}
	htpasswd_done(&htpasswd);
	return 0;
}
