#include "tools/cmd/trust-files.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "fs/base/fd.h"

#define MARK      "# written by imgfs trust\n"
#define HOSTS_MAX 65536u

static const char *const PLACES[] = { "etc/imgfs/certs.d", "etc/docker/certs.d", "etc/containerd/certs.d" };
#define CONTAINERD 2u

static int path_of(const char *root, size_t place, const char *host, const char *name, char ret_path[static PATH_MAX],
		   Error *error)
{
	int length = snprintf(ret_path, PATH_MAX, "%s/%s/%s%s%s", root, PLACES[place], host, name[0] ? "/" : "", name);
	return length < PATH_MAX ? 0 : error_set(error, -ENAMETOOLONG, "%s is too long a path", root);
}

/* Is the hosts.toml there one of ours? 1, or 0 when there is none. Errors: -EEXIST. */
static int check_hosts(const char *path, Error *error)
{
	_cleanup_free_ char *text = NULL;
	size_t size;
	int r = fd_read_file(AT_FDCWD, path, HOSTS_MAX, &text, &size);
	if (r == -ENOENT || r == -ENOTDIR)
		return 0;
	if (r < 0)
		return error_set(error, r, "%s cannot be read: %s", path, error_text(NULL, r));
	if (strncmp(text, MARK, strlen(MARK)) == 0)
		return 1;
	return error_set(
		error, -EEXIST,
		"%s is there and was not written by `imgfs trust`: move it away, or add the authority to it by hand",
		path);
}

static int write_file(const char *path, const char *data, size_t size, Error *error)
{
	int r = fd_replace_file(AT_FDCWD, path, data, size, 0644);
	return r < 0 ? error_set(error, r, "%s cannot be written: %s", path, error_text(NULL, r)) : 0;
}

static int write_hosts(const char *path, const char *host, Error *error)
{
	/* A relative path: containerd takes it from the directory of the file. */
	_cleanup_free_ char *text = NULL;
	if (asprintf(&text,
		     MARK "server = \"https://%s\"\n\n[host.\"https://%s\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
			  "  ca = \"ca.crt\"\n",
		     host, host) < 0)
		return error_set(error, -ENOMEM, "out of memory");
	return write_file(path, text, strlen(text), error);
}

int trust_files_install(const char *root, const char *host, const char *pem, size_t size, Error *error)
{
	char path[PATH_MAX];
	int r = path_of(root, CONTAINERD, host, "hosts.toml", path, error);
	if (r == 0)
		r = check_hosts(path, error);
	for (size_t i = 0; r >= 0 && i < ELEMENTS(PLACES); i++) {
		r = path_of(root, i, host, "", path, error);
		if (r < 0)
			break;
		r = fd_make_directories(AT_FDCWD, path, 0755);
		if (r < 0)
			return error_set(error, r, "%s cannot be made: %s", path, error_text(NULL, r));
		r = path_of(root, i, host, "ca.crt", path, error);
		if (r == 0)
			r = write_file(path, pem, size, error);
	}
	if (r == 0)
		r = path_of(root, CONTAINERD, host, "hosts.toml", path, error);
	return r < 0 ? r : write_hosts(path, host, error);
}

/* 1 when the file was there. */
static int remove_file(const char *path, Error *error)
{
	if (unlink(path) == 0)
		return 1;
	if (errno == ENOENT || errno == ENOTDIR)
		return 0;
	return error_set(error, -errno, "%s cannot be removed: %s", path, error_text(NULL, errno));
}

int trust_files_remove(const char *root, const char *host, Error *error)
{
	char path[PATH_MAX];
	int removed = 0;
	int r = path_of(root, CONTAINERD, host, "hosts.toml", path, error);
	if (r == 0)
		r = check_hosts(path, error);
	if (r > 0)
		r = remove_file(path, error);
	for (size_t i = 0; r >= 0 && i < ELEMENTS(PLACES); i++) {
		removed += r;
		r = path_of(root, i, host, "ca.crt", path, error);
		if (r == 0)
			r = remove_file(path, error);
		/* What else stands in the directory, such as client.key, is not ours to remove. */
		char directory[PATH_MAX];
		if (r >= 0 && path_of(root, i, host, "", directory, NULL) == 0)
			(void)rmdir(directory);
	}
	if (r < 0)
		return r;
	return removed + r > 0 ? 0 : error_set(error, -ENOENT, "nothing is trusted for %s below %s/etc", host, root);
}
