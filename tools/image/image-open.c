#include "tools/image/image-open.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/image/image-docker.h"
#include "tools/image/image-oci-layout.h"

#define DOCKER_DAEMON "docker-daemon:"

typedef struct Form {
	const char *prefix;
	const char *usage;
	int (*open)(const char *path, const char *wanted, const Platform *platform, ImageSource **ret_source,
		    Error *error);
} Form;

/* The part behind a prefix, or NULL. */
static const char *after(const char *text, const char *prefix)
{
	size_t length = strlen(prefix);
	return strncmp(text, prefix, length) == 0 ? text + length : NULL;
}

/*
 * Splits PATH[:REF]: the longest part before a colon that exists is the path. Where none does, the path is what stands before the first
 * colon, so that the error names what was probably meant. Both are malloc'ed; `ret_reference` may be NULL.
 */
static int split_path(const char *text, char **ret_path, char **ret_reference)
{
	_cleanup_free_ char *path = strdup(text);
	_cleanup_free_ char *reference = NULL;
	if (!path)
		return -ENOMEM;
	const char *first = strchr(text, ':');
	while (strcmp(path, "-") != 0 && access(path, F_OK) < 0) {
		char *colon = strrchr(path, ':');
		if (!colon)
			break;
		*colon = '\0';
	}
	if (access(path, F_OK) < 0 && first)
		path[first - text] = '\0';
	if (text[strlen(path)] == ':') {
		reference = strdup(text + strlen(path) + 1);
		if (!reference)
			return -ENOMEM;
	}
	*ret_path = TAKE_PTR(path);
	*ret_reference = TAKE_PTR(reference);
	return 0;
}

static int open_stdin(const char *wanted, ImageSource **ret_source, Error *error)
{
	if (isatty(STDIN_FILENO))
		return error_set(error, -EINVAL,
				 "standard input is a terminal; pipe an image into it: docker save "
				 "IMAGE | imgfs export -");
	int fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
	if (fd < 0)
		return error_set(error, -errno, "cannot read standard input: %s", strerrordesc_np(errno));
	return image_docker_archive_stream(fd, "-", wanted, ret_source, error);
}

/* A docker archive holds one image a name: a platform is compared, not chosen. */
static int open_docker_archive(const char *path, const char *wanted, const Platform *platform _unused_,
			       ImageSource **ret_source, Error *error)
{
	if (strcmp(path, "-") == 0)
		return open_stdin(wanted, ret_source, error);
	return image_docker_archive_open(path, wanted, ret_source, error);
}

static const Form forms[] = {
	{ "docker-archive:", "docker-archive:FILE[:REF]", open_docker_archive },
	{ "oci-archive:", "oci-archive:FILE[:REF]", image_oci_archive_open },
	{ "oci:", "oci:DIR[:REF]", image_oci_layout_open },
};

static int open_path(const char *text, const Form *form, const Platform *platform, ImageSource **ret_source,
		     Error *error)
{
	_cleanup_free_ char *path = NULL;
	_cleanup_free_ char *wanted = NULL;
	int r = split_path(text, &path, &wanted);
	if (r < 0)
		return error_set(error, r, "out of memory to open %s", text);
	if (!path[0] || (wanted && !wanted[0]))
		return error_set(error, -EINVAL, "\"%s\" lacks a part; the form is %s", text, form->usage);
	return form->open(path, wanted, platform, ret_source, error);
}

int image_open_source(const char *text, const Platform *platform, ImageSource **ret_source, Error *error)
{
	const char *rest;
	if (strcmp(text, "-") == 0)
		return open_stdin(NULL, ret_source, error);
	for (size_t i = 0; i < ELEMENTS(forms); i++) {
		if ((rest = after(text, forms[i].prefix)))
			return open_path(rest, &forms[i], platform, ret_source, error);
	}
	rest = after(text, DOCKER_DAEMON) ?: text;
	/* A path or a URL is never an image's name; who writes one forgot the prefix. */
	if (rest == text && (text[0] == '/' || text[0] == '.' || strstr(text, "://")))
		return error_set(error, -EINVAL,
				 "\"%s\" is no image; write docker-archive:FILE for what docker save made, oci:DIR or "
				 "oci-archive:FILE for an OCI image layout",
				 text);
	return image_docker_daemon_open(NULL, rest, ret_source, error);
}

int image_open_hint(const char *text, int code, Error *error)
{
	struct stat status;
	bool bare = strcmp(text, "-") != 0 && !after(text, DOCKER_DAEMON);
	for (size_t i = 0; i < ELEMENTS(forms); i++)
		bare = bare && !after(text, forms[i].prefix);
	if (!bare || !error || stat(text, &status) < 0)
		return code;
	Error reason = *error;
	return error_set(error, code, "%s; if the %s %s is meant, write %s%s", error_text(&reason, code),
			 S_ISDIR(status.st_mode) ? "directory" : "file", text,
			 S_ISDIR(status.st_mode) ? "oci:" : "docker-archive:", text);
}
