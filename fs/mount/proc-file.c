#include "fs/mount/proc-file.h"

#include <errno.h>
#include <fcntl.h>

#include "fs/base/fd.h"

#define FIRST_SIZE 16384u

int proc_file_read(const char *path, size_t limit, char **ret_text, size_t *ret_size)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	_cleanup_free_ char *text = NULL;
	size_t used = 0, room = 0;
	do {
		room = room ? 2 * room : FIRST_SIZE;
		char *larger = realloc(text, room);
		if (!larger)
			return -ENOMEM;
		text = larger;
		ssize_t count = fd_read_full(fd, text + used, room - used);
		if (count < 0)
			return (int)count;
		used += (size_t)count;
		if (used > limit)
			return -EFBIG;
	} while (used == room);
	text[used] = '\0';
	*ret_text = TAKE_PTR(text);
	*ret_size = used;
	return 0;
}
