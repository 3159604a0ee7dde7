#include "fs/mount/reply-errno.h"

#include <errno.h>
#include <stddef.h>

#include "fs/base/cleanup.h"

int reply_errno_tree(int error)
{
	static const int meant[] = { ENOENT, ENODATA, ENOSYS, ENOTDIR, EISDIR,
				     EINVAL, ERANGE,  ENXIO,  ESTALE,  ENAMETOOLONG };
	for (size_t i = 0; i < ELEMENTS(meant); i++) {
		if (error == -meant[i])
			return meant[i];
	}
	return EIO;
}

int reply_errno_data(int error)
{
	return error == -EINTR ? EINTR : EIO;
}
