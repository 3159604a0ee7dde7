#include "fs/net/net-access.h"

#include <fcntl.h>
#include <jansson.h>
#include <openssl/crypto.h>
#include <string.h>

#include "fs/base/fd.h"
#include "fs/net/net-basic.h"
#include "fs/net/net-login.h"
#include "fs/net/net-registry.h"
#include "fs/net/net-secret.h"

#define PEM_MAX (1u << 20)

static void json_decref_p(json_t **value)
{
	json_decref(*value);
}

void net_access_done(NetAccess *access)
{
	free(access->ca);
	free(access->certificate);
	net_secret_wipe(&access->key);
	net_secret_wipe(&access->user);
	net_secret_wipe(&access->identity);
	net_secret_wipe(&access->bearer);
	*access = (NetAccess){ 0 };
}

/* Reads a file into `ret_pem`; nothing there is no error. */
static int read_pem(const char *path, char **ret_pem, Error *error)
{
	_cleanup_free_ char *pem = NULL;
	size_t size;
	int r = fd_read_file(AT_FDCWD, path, PEM_MAX, &pem, &size);
	if (r == -ENOENT || r == -ENOTDIR)
		return 0;
	if (r < 0)
		return error_set(error, r, "%s cannot be read: %s", path, error_text(NULL, r));
	if (strlen(pem) != size || !strstr(pem, "-----BEGIN "))
		return error_set(error, -EINVAL,
				 "%s is not PEM (\"-----BEGIN ...\"); put the right file there, or remove it", path);
	*ret_pem = TAKE_PTR(pem);
	return 0;
}

static int read_pem_in(const char *directory, const char *name, char **ret_pem, Error *error)
{
	_cleanup_free_ char *path = NULL;
	if (asprintf(&path, "%s/%s", directory, name) < 0)
		return error_set(error, -ENOMEM, "out of memory");
	return read_pem(path, ret_pem, error);
}

static int load_files(const char *directory, NetAccess *access, Error *error)
{
	int r = read_pem_in(directory, "ca.crt", &access->ca, error);
	if (r == 0)
		r = read_pem_in(directory, "client.cert", &access->certificate, error);
	if (r == 0)
		r = read_pem_in(directory, "client.key", &access->key, error);
	if (r == 0 && !access->certificate != !access->key)
		return error_set(error, -EINVAL, "%s has one of client.cert and client.key; it takes both", directory);
	return r;
}

static int load_certificates(const char *certs, const char *host, NetAccess *access, Error *error)
{
	if (host[0] == '\0' || host[0] == '.' || strchr(host, '/'))
		return error_set(error, -EINVAL, "\"%s\" is no host", host);
	_cleanup_free_ char *directory = NULL;
	if (asprintf(&directory, "%s/%s", certs, host) < 0)
		return error_set(error, -ENOMEM, "out of memory");
	return load_files(directory, access, error);
}

/* Certificate and key named by hand, in the place of those in a directory. */
static int load_named(const NetAccessOptions *options, NetAccess *access, Error *error)
{
	const struct {
		const char *path;
		char **pem;
	} files[] = {
		{ options->ca, &access->ca },
		{ options->certificate, &access->certificate },
		{ options->key, &access->key },
	};
	if (!options->certificate != !options->key)
		return error_set(error, -EINVAL, "a client certificate and its key go together: give both, or none");
	for (size_t i = 0; i < ELEMENTS(files); i++) {
		if (!files[i].path)
			continue;
		free(*files[i].pem);
		*files[i].pem = NULL;
		int r = read_pem(files[i].path, files[i].pem, error);
		if (r == 0 && !*files[i].pem)
			r = error_set(error, -ENOENT, "%s is not there", files[i].path);
		if (r < 0)
			return r;
	}
	return 0;
}

static int load_user(const NetAccessOptions *options, const char *host, NetAccess *access, Error *error)
{
	if (!options->user)
		return net_login_load(options->login, host, access, error);
	if (!net_basic_is_login(options->user))
		return error_set(
			error, -EINVAL,
			"user and password have to be one line of UTF-8, %u bytes at most, the user without a colon",
			NET_BASIC_MAX);
	access->user = strdup(options->user);
	return access->user ? 0 : error_set(error, -ENOMEM, "out of memory");
}

int net_access_load(const NetAccessOptions *options, const char *host, NetAccess *ret_access, Error *error)
{
	_cleanup_(net_access_done) NetAccess access = { 0 };
	int r = load_certificates(options->certs ?: NET_CERTS_DIRECTORY, host, &access, error);
	if (r == 0)
		r = load_named(options, &access, error);
	if (r == 0)
		r = load_user(options, host, &access, error);
	if (r < 0)
		return r;
	*ret_access = access;
	access = (NetAccess){ 0 };
	return 0;
}

char *net_access_base(const NetAccess *access, const char *host, bool plain_http)
{
	char *base;
	if (plain_http || (!access->ca && !access->certificate))
		return net_registry_base(host, plain_http);
	return asprintf(&base, "https://%s", host) < 0 ? NULL : base;
}

int net_access_encode(const NetAccess *access, char **ret_text)
{
	_cleanup_(json_decref_p) json_t *root = json_pack(
		"{s:s*, s:s*, s:s*, s:s*, s:s*, s:s*}", "ca", access->ca, "certificate", access->certificate, "key",
		access->key, "user", access->user, "identity", access->identity, "bearer", access->bearer);
	char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
	if (!text)
		return -ENOMEM;
	*ret_text = text;
	return 0;
}

/* Copies a field, if there is one. */
static int take(const char *value, char **ret_copy)
{
	if (!value)
		return 0;
	*ret_copy = strdup(value);
	return *ret_copy ? 0 : -ENOMEM;
}

int net_access_decode(const char *text, NetAccess *ret_access)
{
	_cleanup_(json_decref_p) json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	const char *ca = NULL, *certificate = NULL, *key = NULL, *user = NULL, *identity = NULL, *bearer = NULL;
	if (!root || json_unpack(root, "{s?s, s?s, s?s, s?s, s?s, s?s}", "ca", &ca, "certificate", &certificate, "key",
				 &key, "user", &user, "identity", &identity, "bearer", &bearer) < 0)
		return -EBADMSG;
	_cleanup_(net_access_done) NetAccess access = { 0 };
	int r = take(ca, &access.ca);
	if (r == 0)
		r = take(certificate, &access.certificate);
	if (r == 0)
		r = take(key, &access.key);
	if (r == 0)
		r = take(user, &access.user);
	if (r == 0)
		r = take(identity, &access.identity);
	if (r == 0)
		r = take(bearer, &access.bearer);
	if (r < 0)
		return r;
	*ret_access = access;
	access = (NetAccess){ 0 };
	return 0;
}
