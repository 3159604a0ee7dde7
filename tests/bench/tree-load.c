/*
 * tree-load - one load on a tree of files, and how long it took: seconds on standard output, then what was done as a check.
 *
 *   walk DIR              every name, with lstat
 *   list DIR              every name, without
 *   read FILE             the whole file, 128 KiB at a time
 *   random FILE SIZE N    N reads of SIZE bytes at random places, the same ones each time
 *   small DIR LIST        opens, reads and closes the files below DIR that the file LIST names
 *   map FILE              touches each page of a mapping in order
 *   faults FILE N         touches N random pages of a mapping, read-ahead off
 *   around FILE N         the same with the kernel's reading around each fault
 *   exec ROOT PROGRAM...  runs a program with ROOT as its root directory
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 131072
#define PAGE  4096

static uint64_t checked; /* so that no load can be left out unnoticed */
static char buffer[1 << 20];

static uint64_t next_random(void)
{
	static uint64_t state = 88172645463325252u;
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static void walk(int parent, const char *name, int with_stat)
{
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
	DIR *directory = fd < 0 ? NULL : fdopendir(fd);
	if (!directory)
		err(1, "%s", name);
	for (struct dirent *entry; (entry = readdir(directory));) {
		struct stat st;
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		if (with_stat && fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			err(1, "%s", entry->d_name);
		checked++;
		if (entry->d_type == DT_DIR)
			walk(fd, entry->d_name, with_stat);
	}
	closedir(directory);
}

static int open_file(const char *path, uint64_t *size)
{
	struct stat st;
	int fd = open(path, O_RDONLY);
	if (fd < 0 || fstat(fd, &st) < 0)
		err(1, "%s", path);
	*size = (uint64_t)st.st_size;
	return fd;
}

static void read_whole(int fd)
{
	for (ssize_t size; (size = read(fd, buffer, BLOCK)) != 0; checked += (uint64_t)size)
		if (size < 0)
			err(1, "read");
}

static void read_random(const char *path, size_t size, unsigned long count)
{
	uint64_t length;
	int fd = open_file(path, &length);
	for (unsigned long i = 0; i < count; i++) {
		uint64_t block = next_random() % (length / size);
		ssize_t got = pread(fd, buffer, size, (off_t)(block * size));
		if (got != (ssize_t)size)
			err(1, "pread");
		checked += (unsigned char)buffer[0];
	}
}

static void read_small(const char *directory, const char *list)
{
	FILE *names = fopen(list, "r");
	char name[4096];
	int parent = open(directory, O_RDONLY | O_DIRECTORY);
	if (!names || parent < 0)
		err(1, "%s", list);
	while (fgets(name, sizeof(name), names)) {
		name[strcspn(name, "\n")] = '\0';
		int fd = openat(parent, name, O_RDONLY);
		if (fd < 0)
			err(1, "%s", name);
		read_whole(fd);
		close(fd);
	}
	fclose(names);
}

static void touch(const char *path, unsigned long count, int alone)
{
	uint64_t length;
	int fd = open_file(path, &length);
	const volatile unsigned char *map = mmap(NULL, length, PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		err(1, "mmap");
	if (alone && madvise((void *)(uintptr_t)map, length, MADV_RANDOM) < 0)
		err(1, "madvise");
	if (count > 0)
		for (unsigned long i = 0; i < count; i++)
			checked += map[next_random() % (length / PAGE) * PAGE];
	else
		for (uint64_t at = 0; at < length; at += PAGE)
			checked += map[at];
}

static void run(char **argv)
{
	int status;
	pid_t pid = fork();
	if (pid == 0) {
		int null = open("/dev/null", O_WRONLY); /* an image has none */
		if (null < 0 || dup2(null, STDOUT_FILENO) < 0 || dup2(null, STDERR_FILENO) < 0)
			err(1, "/dev/null");
		if (chroot(argv[0]) < 0 || chdir("/") < 0)
			err(1, "chroot");
		execv(argv[1], argv + 1);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0 || status != 0)
		errx(1, "%s: status %#x", argv[1], status);
	checked++;
}

static void load(int argc, char **argv)
{
	const char *kind = argc > 2 ? argv[1] : "";
	if (strcmp(kind, "walk") == 0)
		walk(AT_FDCWD, argv[2], 1);
	else if (strcmp(kind, "list") == 0)
		walk(AT_FDCWD, argv[2], 0);
	else if (strcmp(kind, "read") == 0)
		read_whole(open_file(argv[2], &(uint64_t){ 0 }));
	else if (strcmp(kind, "random") == 0 && argc == 5)
		read_random(argv[2], strtoul(argv[3], NULL, 10), strtoul(argv[4], NULL, 10));
	else if (strcmp(kind, "small") == 0 && argc == 4)
		read_small(argv[2], argv[3]);
	else if (strcmp(kind, "map") == 0)
		touch(argv[2], 0, 0);
	else if (strcmp(kind, "faults") == 0 && argc == 4)
		touch(argv[2], strtoul(argv[3], NULL, 10), 1);
	else if (strcmp(kind, "around") == 0 && argc == 4)
		touch(argv[2], strtoul(argv[3], NULL, 10), 0);
	else if (strcmp(kind, "exec") == 0 && argc > 3)
		run(argv + 2);
	else
		errx(2, "usage: tree-load LOAD ARGUMENT...");
}

int main(int argc, char **argv)
{
	struct timespec before, after;
	clock_gettime(CLOCK_MONOTONIC, &before);
	load(argc, argv);
	clock_gettime(CLOCK_MONOTONIC, &after);
	printf("%.6f %llu\n", (double)(after.tv_sec - before.tv_sec) + (double)(after.tv_nsec - before.tv_nsec) / 1e9,
	       (unsigned long long)checked);
	return 0;
}
