/* Runs a fuzz target over every file of the directories and files named, so that its corpus is a test. */
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fs/base/fd.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay(int dirfd, const char *path)
{
	_cleanup_free_ char *data = NULL;
	size_t size;
	if (fd_read_file(dirfd, path, SIZE_MAX / 2, &data, &size) < 0) {
		fprintf(stderr, "%s: cannot be read\n", path);
		return -1;
	}
	/* A copy of the exact size lets a sanitizer see reads past its end. */
	_cleanup_free_ uint8_t *exact = malloc(size ? size : 1);
	if (!exact)
		return -1;
	memcpy(exact, data, size);
	return LLVMFuzzerTestOneInput(exact, size);
}

int main(int argc, char **argv)
{
	size_t count = 0;
	for (int i = 1; i < argc; i++) {
		_cleanup_closedir_ DIR *directory = opendir(argv[i]);
		if (!directory) {
			if (replay(AT_FDCWD, argv[i]) < 0)
				return 1;
			count++;
			continue;
		}
		for (struct dirent *entry; (entry = readdir(directory));) {
			if (entry->d_name[0] == '.')
				continue;
			if (replay(dirfd(directory), entry->d_name) < 0)
				return 1;
			count++;
		}
	}
	printf("%zu inputs\n", count);
	return count > 0 ? 0 : 1;
}
