/*
 * raw-fuse TREE BLOB POINT - the plainest FUSE server of a read-only tree: names in memory, the bytes of all files in one uncompressed
 * file, each at a multiple of 4096, handed out as they are. Nothing is checked, nothing survives it; that makes it the measure of what
 * a request costs where the kernel asks a process. BLOB is made when it is missing. Says "ready" once it is mounted, ends at the unmount.
 *
 * All that makes FUSE fast is on: open and opendir answered ENOSYS, names and attributes cached for ever, readdirplus, reads of 1 MiB, three threads
 * with buffers of their own, getxattr answered ENOSYS (so the tree may have none). Whoever starts it sets the read-ahead.
 */
#define _GNU_SOURCE
#define FUSE_USE_VERSION 312
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define PAGE     4096u
#define READ_MAX (1u << 20)
#define FOREVER  1e9
#define THREADS  3

typedef struct Node {
	const char *name;
	char *path; /* below TREE; only until all is listed */
	char *target;
	struct stat st;
	uint64_t data;                 /* in the blob */
	uint32_t parent, first, count; /* children, sorted by name */
} Node;

static Node *nodes; /* by number; the kernel's number is one more, which makes the root 1 */
static uint32_t node_count, node_room;
static int blob;
static struct fuse_session *session;
static _Thread_local char *reply; /* READ_MAX bytes */

static Node *add_node(uint32_t parent, const char *directory, const char *name)
{
	if (node_count == node_room) {
		node_room = 2 * node_room + 1024;
		nodes = realloc(nodes, node_room * sizeof(*nodes));
		if (!nodes)
			err(1, "memory");
	}
	Node *node = &nodes[node_count++];
	*node = (Node){ .name = strdup(name), .parent = parent };
	if (asprintf(&node->path, "%s%s%s", directory, *name ? "/" : "", name) < 0 || lstat(node->path, &node->st) < 0)
		err(1, "%s", name);
	if (llistxattr(node->path, NULL, 0) > 0)
		errx(1, "%s has extended attributes, which this server lacks", node->path);
	node->st.st_ino = node_count;
	if (S_ISLNK(node->st.st_mode)) {
		node->target = calloc(1, PAGE);
		if (!node->target || readlink(node->path, node->target, PAGE - 1) < 0)
			err(1, "%s", node->path);
	}
	return node;
}

static int by_name(const struct dirent **left, const struct dirent **right)
{
	return strcmp((*left)->d_name, (*right)->d_name);
}

/* Breadth first, so that the children of a directory stand together. */
static void list_tree(const char *tree)
{
	uint64_t used = 0;
	(void)add_node(0, tree, "");
	for (uint32_t i = 0; i < node_count; i++) {
		if (S_ISREG(nodes[i].st.st_mode)) {
			nodes[i].data = used;
			used += ((uint64_t)nodes[i].st.st_size + PAGE - 1) / PAGE * PAGE;
		}
		if (!S_ISDIR(nodes[i].st.st_mode))
			continue;
		struct dirent **names;
		int count = scandir(nodes[i].path, &names, NULL, by_name);
		if (count < 0)
			err(1, "%s", nodes[i].path);
		nodes[i].first = node_count;
		nodes[i].count = (uint32_t)count - 2;
		for (int j = 0; j < count; j++) {
			if (strcmp(names[j]->d_name, ".") != 0 && strcmp(names[j]->d_name, "..") != 0)
				(void)add_node(i, nodes[i].path, names[j]->d_name);
			free(names[j]);
		}
		free(names);
	}
}

static void write_blob(const char *path)
{
	static char part[READ_MAX];
	int to = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	for (uint32_t i = 0; i < node_count; i++) {
		if (!S_ISREG(nodes[i].st.st_mode))
			continue;
		int from = open(nodes[i].path, O_RDONLY | O_CLOEXEC);
		uint64_t at = nodes[i].data;
		for (ssize_t size; (size = read(from, part, sizeof(part))) != 0; at += (uint64_t)size)
			if (size < 0 || pwrite(to, part, (size_t)size, (off_t)at) != size)
				err(1, "%s", nodes[i].path);
		(void)close(from);
		if (ftruncate(to, (off_t)(nodes[i].data + ((uint64_t)nodes[i].st.st_size + PAGE - 1) / PAGE * PAGE)) <
		    0)
			err(1, "%s", path);
	}
	(void)close(to);
}

static Node *node_of(fuse_ino_t number)
{
	return &nodes[number - 1];
}

static struct fuse_entry_param entry_of(uint32_t number)
{
	return (struct fuse_entry_param){
		.ino = number + 1,
		.attr = nodes[number].st,
		.attr_timeout = FOREVER,
		.entry_timeout = FOREVER,
	};
}

static void on_init(void *arg, struct fuse_conn_info *connection)
{
	(void)arg;
	connection->want |=
		connection->capable & (FUSE_CAP_CACHE_SYMLINKS | FUSE_CAP_EXPORT_SUPPORT | FUSE_CAP_ASYNC_READ |
				       FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO);
	connection->want &= ~(unsigned)(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
	connection->max_read = connection->max_write = READ_MAX; /* libfuse makes max_pages of the latter */
	connection->max_background = 64;
	connection->congestion_threshold = 48;
	connection->time_gran = 1;
}

static void on_lookup(fuse_req_t request, fuse_ino_t parent, const char *name)
{
	const Node *directory = node_of(parent);
	uint32_t low = directory->first, high = low + directory->count;
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		if (strcmp(nodes[middle].name, name) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	struct fuse_entry_param entry = { .entry_timeout = FOREVER };
	if (low < directory->first + directory->count && strcmp(nodes[low].name, name) == 0)
		entry = entry_of(low);
	(void)fuse_reply_entry(request, &entry);
}

static void on_forget(fuse_req_t request, fuse_ino_t node, uint64_t count)
{
	(void)node;
	(void)count;
	fuse_reply_none(request);
}

static void on_getattr(fuse_req_t request, fuse_ino_t node, struct fuse_file_info *file)
{
	(void)file;
	(void)fuse_reply_attr(request, &node_of(node)->st, FOREVER);
}

static void on_readlink(fuse_req_t request, fuse_ino_t node)
{
	(void)fuse_reply_readlink(request, node_of(node)->target);
}

static void on_open(fuse_req_t request, fuse_ino_t node, struct fuse_file_info *file)
{
	(void)node;
	(void)file;
	(void)fuse_reply_err(request, ENOSYS);
}

static void on_read(fuse_req_t request, fuse_ino_t number, size_t size, off_t offset, struct fuse_file_info *file)
{
	(void)file;
	const Node *node = node_of(number);
	size_t left = offset < node->st.st_size ? (size_t)(node->st.st_size - offset) : 0;
	size = size < left ? size : left;
	size = size < READ_MAX ? size : READ_MAX;
	if (pread(blob, reply, size, (off_t)node->data + offset) != (ssize_t)size)
		(void)fuse_reply_err(request, EIO);
	else
		(void)fuse_reply_buf(request, reply, size);
}

static void list(fuse_req_t request, fuse_ino_t number, size_t size, off_t offset, int plus)
{
	const Node *directory = node_of(number);
	size_t used = 0;
	size = size < READ_MAX ? size : READ_MAX;
	for (off_t at = offset; at < (off_t)directory->count + 2; at++) {
		uint32_t child = at == 0   ? (uint32_t)number - 1
				 : at == 1 ? directory->parent
					   : directory->first + (uint32_t)at - 2;
		const char *name = at == 0 ? "." : at == 1 ? ".." : nodes[child].name;
		struct fuse_entry_param entry = entry_of(child);
		if (at < 2)
			entry.ino = 0;
		size_t needed = plus ? fuse_add_direntry_plus(request, reply + used, size - used, name, &entry, at + 1)
				     : fuse_add_direntry(request, reply + used, size - used, name, &entry.attr, at + 1);
		if (needed > size - used)
			break;
		used += needed;
	}
	(void)fuse_reply_buf(request, reply, used);
}

static void on_readdir(fuse_req_t request, fuse_ino_t number, size_t size, off_t offset, struct fuse_file_info *file)
{
	(void)file;
	list(request, number, size, offset, 0);
}

static void on_readdirplus(fuse_req_t request, fuse_ino_t number, size_t size, off_t offset,
			   struct fuse_file_info *file)
{
	(void)file;
	list(request, number, size, offset, 1);
}

static const struct fuse_lowlevel_ops operations = {
	.init = on_init,
	.lookup = on_lookup,
	.forget = on_forget,
	.getattr = on_getattr,
	.readlink = on_readlink,
	.open = on_open,
	.opendir = on_open,
	.read = on_read,
	.readdir = on_readdir,
	.readdirplus = on_readdirplus,
};

static void *serve(void *arg)
{
	struct fuse_buf buffer = { 0 };
	(void)arg;
	reply = malloc(READ_MAX);
	if (!reply)
		err(1, "memory");
	memset(reply, 1, READ_MAX);
	while (!fuse_session_exited(session)) {
		int size = fuse_session_receive_buf(session, &buffer);
		if (size > 0)
			fuse_session_process_buf(session, &buffer);
		else if (size != -EINTR)
			break;
	}
	free(buffer.mem);
	free(reply);
	return NULL;
}

int main(int argc, char **argv)
{
	char name[] = "raw-fuse", o[] = "-o",
	     options[] = "ro,nosuid,nodev,allow_other,default_permissions,max_read=1048576";
	char *words[] = { name, o, options, NULL };
	struct fuse_args arguments = FUSE_ARGS_INIT(3, words);
	pthread_t threads[THREADS];
	if (argc != 4)
		errx(2, "usage: raw-fuse TREE BLOB POINT");
	list_tree(argv[1]);
	if (access(argv[2], F_OK) != 0)
		write_blob(argv[2]);
	blob = open(argv[2], O_RDONLY | O_CLOEXEC);
	session = blob < 0 ? NULL : fuse_session_new(&arguments, &operations, sizeof(operations), NULL);
	if (!session || fuse_session_mount(session, argv[3]) < 0)
		err(1, "%s", argv[3]);
	for (int i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, serve, NULL) != 0)
			errx(1, "no thread");
	(void)puts("ready");
	(void)fflush(stdout);
	for (int i = 0; i < THREADS; i++)
		(void)pthread_join(threads[i], NULL);
	fuse_session_unmount(session);
	fuse_session_destroy(session);
	return 0;
}
