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
	for (size_t i = 0; i < access->mirror_count; i++) {
		free(access->mirrors[i].base);
		if (access->mirrors[i].access)
			net_access_done(access->mirrors[i].access);
		free(access->mirrors[i].access);
	}
	free(access->mirrors);
	*access = (NetAccess){ 0 };
}

/* PEM is ASCII (RFC 7468); around it there may be comments in any encoding, which nobody reads, but which net_access_encode() could not take. */
static void make_ascii(char *pem)
{
	for (char *at = pem; *at; at++) {
		if ((unsigned char)*at > 0x7f)
			*at = '?';
	}
}

/* Is that header (RFC 1421) among it as OpenSSL takes it, with or without blanks behind colon and comma? */
static bool has_encrypted_header(const char *pem)
{
	static const char name[] = "Proc-Type:", blanks[] = " \t";
	for (const char *at = pem; (at = strstr(at, name));) {
		at += strlen(name);
		at += strspn(at, blanks);
		if (strncmp(at, "4,", 2) != 0)
			continue;
		at += 2;
		at += strspn(at, blanks);
		if (strncmp(at, "ENCRYPTED", 9) == 0)
			return true;
	}
	return false;
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
	/* OpenSSL would ask at the terminal, and libcurl dies of it where there is none. */
	if (strstr(pem, "-----BEGIN ENCRYPTED PRIVATE KEY-----") || has_encrypted_header(pem))
		return error_set(
			error, -EINVAL,
			"%s is encrypted, and imgfs has no pass phrase for it; put there what `openssl pkey -in "
			"FILE` prints",
			path);
	make_ascii(pem);
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

static bool has_login(const NetAccess *access)
{
	return access->user || access->identity || access->bearer;
}

static void exchange(char **text, char **newer)
{
	char *before = *text;
	*text = *newer;
	*newer = before;
}

static void exchange_login(NetAccess *access, NetAccess *newer)
{
	exchange(&access->user, &newer->user);
	exchange(&access->identity, &newer->identity);
	exchange(&access->bearer, &newer->bearer);
}

bool net_access_renew(NetAccess *access, NetAccess *newer)
{
	bool renewed = has_login(newer);
	if (renewed)
		exchange_login(access, newer);
	for (size_t i = 0; i < access->mirror_count && i < newer->mirror_count; i++) {
		NetMirror *mirror = &access->mirrors[i], *other = &newer->mirrors[i];
		if (strcmp(mirror->base, other->base) != 0 || !has_login(other->access))
			continue;
		exchange_login(mirror->access, other->access);
		renewed = true;
	}
	return renewed;
}

char *net_access_base(const NetAccess *access, const char *host, bool plain_http)
{
	char *base;
	if (plain_http || (!access->ca && !access->certificate))
		return net_registry_base(host, plain_http);
	return asprintf(&base, "https://%s", host) < 0 ? NULL : base;
}

char *net_mirror_url(const NetMirror *mirror, const char *url)
{
	const char *host = strstr(url, "://"), *path = host ? strchr(host + 3, '/') : NULL;
	char *text;
	if (mirror->is_source && path)
		return asprintf(&text, "%s/imgfs/blobs%s", mirror->base, strrchr(path, '/')) < 0 ? NULL : text;
	return asprintf(&text, "%s%s", mirror->base, path ?: "") < 0 ? NULL : text;
}

static json_t *encode_one(const NetAccess *access)
{
	return json_pack("{s:s*, s:s*, s:s*, s:s*, s:s*, s:s*}", "ca", access->ca, "certificate", access->certificate,
			 "key", access->key, "user", access->user, "identity", access->identity, "bearer",
			 access->bearer);
}

static int encode_mirrors(const NetAccess *access, json_t *root)
{
	json_t *mirrors = json_array();
	for (size_t i = 0; i < access->mirror_count; i++) {
		const NetMirror *mirror = &access->mirrors[i];
		json_t *object = encode_one(mirror->access);
		if (json_object_set_new(object, "base", json_string(mirror->base)) < 0 ||
		    (mirror->is_source && json_object_set_new(object, "source", json_true()) < 0) ||
		    json_array_append_new(mirrors, json_incref(object)) < 0) {
			json_decref(object);
			json_decref(mirrors);
			return -ENOMEM;
		}
		json_decref(object);
	}
	return json_object_set_new(root, "mirrors", mirrors) < 0 ? -ENOMEM : 0;
}

int net_access_encode(const NetAccess *access, char **ret_text)
{
	_cleanup_(json_decref_p) json_t *root = encode_one(access);
	if (!root || (access->mirror_count > 0 && encode_mirrors(access, root) < 0))
		return -ENOMEM;
	char *text = json_dumps(root, JSON_COMPACT);
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

static int decode_one(json_t *root, NetAccess *access)
{
	const struct {
		const char *key;
		char **field;
	} fields[] = {
		{ "ca", &access->ca },     { "certificate", &access->certificate }, { "key", &access->key },
		{ "user", &access->user }, { "identity", &access->identity },       { "bearer", &access->bearer },
	};
	for (size_t i = 0; i < ELEMENTS(fields); i++) {
		const json_t *value = json_object_get(root, fields[i].key);
		if (value && !json_is_string(value))
			return -EBADMSG;
		int r = take(json_string_value(value), fields[i].field);
		if (r < 0)
			return r;
	}
	return json_is_object(root) ? 0 : -EBADMSG;
}

static int decode_mirrors(json_t *list, NetAccess *access)
{
	if (!list)
		return 0;
	/* With one more the loop of transfers would have no site for it, and speak to it with the host's own access. */
	if (json_array_size(list) > NET_MIRRORS_MAX)
		return -EBADMSG;
	access->mirrors = json_is_array(list) ? calloc(json_array_size(list) + 1, sizeof(*access->mirrors)) : NULL;
	if (!access->mirrors)
		return json_is_array(list) ? -ENOMEM : -EBADMSG;
	for (size_t i = 0; i < json_array_size(list); i++) {
		json_t *object = json_array_get(list, i);
		NetMirror *mirror = &access->mirrors[access->mirror_count];
		mirror->access = calloc(1, sizeof(*mirror->access));
		if (!mirror->access)
			return -ENOMEM;
		access->mirror_count++;
		int r = decode_one(object, mirror->access);
		if (r == 0)
			r = take(json_string_value(json_object_get(object, "base")), &mirror->base);
		mirror->is_source = json_is_true(json_object_get(object, "source"));
		if (r < 0 || !mirror->base)
			return r < 0 ? r : -EBADMSG;
	}
	return 0;
}

int net_access_decode(const char *text, NetAccess *ret_access)
{
	_cleanup_(json_decref_p) json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	_cleanup_(net_access_done) NetAccess access = { 0 };
	if (!root)
		return -EBADMSG;
	int r = decode_one(root, &access);
	if (r == 0)
		r = decode_mirrors(json_object_get(root, "mirrors"), &access);
	if (r < 0)
		return r;
	*ret_access = access;
	access = (NetAccess){ 0 };
	return 0;
}
