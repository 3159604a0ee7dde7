#include "tools/cmd/cmd-store.h"

int cmd_store_open(const char *path, bool create, Store **ret_store, Error *error)
{
	_cleanup_free_ char *chosen = NULL;
	if (!path) {
		chosen = store_default_path();
		if (!chosen)
			return error_set(error, -ENOMEM, "out of memory for the store's path");
	}
	return store_open(path ?: chosen, create, ret_store, error);
}
