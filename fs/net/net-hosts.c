#include "fs/net/net-hosts.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <string.h>
#include <strings.h>

#include "fs/base/fd.h"
#include "fs/net/net-secret.h"

#define PASSWORD_MAX 4096u
#define HOST_MAX     256u

static void host_done(NetHost *host)
{
	for (size_t i = 0; i < host->mirror_count; i++)
		free(host->mirrors[i]);
	free(host->name);
	free(host->ca);
	free(host->certificate);
	free(host->key);
	free(host->password_file);
	free(host->login);
	net_secret_wipe(&host->user);
}

void net_hosts_done(NetHosts *hosts)
{
	for (size_t i = 0; i < hosts->host_count; i++)
		host_done(&hosts->hosts[i]);
	for (size_t i = 0; i < hosts->source_count; i++) {
		free(hosts->sources[i].name);
		free(hosts->sources[i].url);
	}
	free(hosts->hosts);
	free(hosts->sources);
	*hosts = (NetHosts){ 0 };
}

/* Also where there is none. */
static int copy_text(const char *text, char **ret_copy)
{
	*ret_copy = text ? strdup(text) : NULL;
	return text && !*ret_copy ? -ENOMEM : 0;
}

/* What was copied before a failure is for host_done(). */
static int copy_host(const NetHost *host, NetHost *copy)
{
	*copy = (NetHost){ .plain_http = host->plain_http };
	const char *const texts[] = { host->name,          host->ca,   host->certificate, host->key, host->user,
				      host->password_file, host->login };
	char **const copies[] = { &copy->name,          &copy->ca,   &copy->certificate, &copy->key, &copy->user,
				  &copy->password_file, &copy->login };
	int r = 0;
	for (size_t i = 0; r == 0 && i < ELEMENTS(texts); i++)
		r = copy_text(texts[i], copies[i]);
	for (size_t i = 0; r == 0 && i < host->mirror_count; i++) {
		r = copy_text(host->mirrors[i], &copy->mirrors[i]);
		copy->mirror_count += r == 0;
	}
	return r;
}

int net_hosts_copy(const NetHosts *hosts, NetHosts *ret_hosts)
{
	_cleanup_(net_hosts_done) NetHosts copy = { 0 };
	if (!hosts) {
		*ret_hosts = copy;
		return 0;
	}
	copy.hosts = calloc(hosts->host_count + 1, sizeof(*copy.hosts));
	copy.sources = calloc(hosts->source_count + 1, sizeof(*copy.sources));
	int r = copy.hosts && copy.sources ? 0 : -ENOMEM;
	for (size_t i = 0; r == 0 && i < hosts->host_count; i++)
		r = copy_host(&hosts->hosts[i], &copy.hosts[copy.host_count++]);
	for (size_t i = 0; r == 0 && i < hosts->source_count; i++) {
		NetSource *source = &copy.sources[copy.source_count++];
		r = copy_text(hosts->sources[i].name, &source->name);
		if (r == 0)
			r = copy_text(hosts->sources[i].url, &source->url);
	}
	if (r < 0)
		return r;
	*ret_hosts = copy;
	copy = (NetHosts){ 0 };
	return 0;
}

bool net_hosts_has_section(const char *section)
{
	return strcmp(section, "host") == 0 || strcmp(section, "source") == 0;
}

const NetHost *net_hosts_find(const NetHosts *hosts, const char *name)
{
	for (size_t i = 0; hosts && i < hosts->host_count; i++)
		if (strcmp(hosts->hosts[i].name, name) == 0)
			return &hosts->hosts[i];
	return NULL;
}

typedef struct Parser {
	const Conf *conf;
	const ConfEntry *entry;
	NetHosts *hosts;
	Error *error;
} Parser;

static int fail(const Parser *parser, const char *what, const char *value)
{
	return error_set(parser->error, -EINVAL, "%s:%u: %s \"%.200s\"", parser->conf->path, parser->entry->line, what,
			 value);
}

static int copy(const Parser *parser, const char *value, char **ret_copy)
{
	if (!value[0])
		return fail(parser, "a value is missing for", parser->entry->key);
	free(*ret_copy);
	*ret_copy = strdup(value);
	return *ret_copy ? 0 : error_set(parser->error, -ENOMEM, "out of memory");
}

/* NAME, NAME:PORT, [ADDRESS]:PORT: what can stand in a reference before the first slash. */
static bool is_host(const char *text)
{
	size_t length = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:[]");
	return length > 0 && length < HOST_MAX && !text[length] && text[0] != '.' && text[0] != ':';
}

static int read_mirrors(const Parser *parser, NetHost *host)
{
	_cleanup_free_ char *list = strdup(parser->entry->value);
	char *rest = NULL;
	if (!list)
		return error_set(parser->error, -ENOMEM, "out of memory");
	for (char *word = strtok_r(list, " \t,", &rest); word; word = strtok_r(NULL, " \t,", &rest)) {
		if (!is_host(word))
			return fail(parser, "a mirror is NAME:PORT, not", word);
		if (strcmp(word, host->name) == 0)
			return fail(parser, "a host is no mirror of itself:", word);
		if (host->mirror_count == NET_MIRRORS_MAX)
			return fail(parser, "eight mirrors are the most; this is one more:", word);
		host->mirrors[host->mirror_count] = strdup(word);
		if (!host->mirrors[host->mirror_count++])
			return error_set(parser->error, -ENOMEM, "out of memory");
	}
	return host->mirror_count > 0 ? 0 : fail(parser, "a value is missing for", parser->entry->key);
}

static int read_switch(const Parser *parser, bool *ret_on)
{
	static const char *const words[][2] = { { "no", "yes" }, { "off", "on" }, { "false", "true" }, { "0", "1" } };
	for (size_t i = 0; i < 2 * ELEMENTS(words); i++) {
		if (strcasecmp(parser->entry->value, words[i / 2][i % 2]) != 0)
			continue;
		*ret_on = i % 2 == 1;
		return 0;
	}
	return fail(parser, "neither yes nor no:", parser->entry->value);
}

static int read_host_key(const Parser *parser, NetHost *host)
{
	const ConfEntry *entry = parser->entry;
	const struct {
		const char *key;
		char **value;
	} texts[] = {
		{ "ca", &host->ca },
		{ "cert", &host->certificate },
		{ "key", &host->key },
		{ "user", &host->user },
		{ "password-file", &host->password_file },
		{ "login", &host->login },
	};
	if (strcmp(entry->key, "mirrors") == 0)
		return read_mirrors(parser, host);
	if (strcmp(entry->key, "plain-http") == 0)
		return read_switch(parser, &host->plain_http);
	for (size_t i = 0; i < ELEMENTS(texts); i++)
		if (strcmp(entry->key, texts[i].key) == 0)
			return copy(parser, entry->value, texts[i].value);
	return fail(parser, "a host has mirrors, plain-http, ca, cert, key, user, password-file and login, but no key",
		    entry->key);
}

static int find_host(const Parser *parser, NetHost **ret_host)
{
	NetHosts *hosts = parser->hosts;
	const char *name = parser->entry->name ?: "";
	if (!is_host(name))
		return fail(parser, "a section of a host is written [host NAME:PORT], not", name);
	for (size_t i = 0; i < hosts->host_count; i++) {
		if (strcmp(hosts->hosts[i].name, name) == 0) {
			*ret_host = &hosts->hosts[i];
			return 0;
		}
	}
	NetHost *larger = reallocarray(hosts->hosts, hosts->host_count + 1, sizeof(*larger));
	if (!larger)
		return error_set(parser->error, -ENOMEM, "out of memory");
	hosts->hosts = larger;
	NetHost *host = &larger[hosts->host_count];
	*host = (NetHost){ .name = strdup(name) };
	if (!host->name)
		return error_set(parser->error, -ENOMEM, "out of memory");
	hosts->host_count++;
	*ret_host = host;
	return 0;
}

static int find_source(const Parser *parser, NetSource **ret_source)
{
	NetHosts *hosts = parser->hosts;
	const char *name = parser->entry->name;
	if (!name)
		return fail(parser, "a source is written [source NAME], not", "[source]");
	for (size_t i = 0; i < hosts->source_count; i++) {
		if (strcmp(hosts->sources[i].name, name) == 0) {
			*ret_source = &hosts->sources[i];
			return 0;
		}
	}
	NetSource *larger = reallocarray(hosts->sources, hosts->source_count + 1, sizeof(*larger));
	if (!larger)
		return error_set(parser->error, -ENOMEM, "out of memory");
	hosts->sources = larger;
	NetSource *source = &larger[hosts->source_count];
	*source = (NetSource){ .name = strdup(name) };
	if (!source->name)
		return error_set(parser->error, -ENOMEM, "out of memory");
	hosts->source_count++;
	*ret_source = source;
	return 0;
}

static int read_source_key(const Parser *parser, NetSource *source)
{
	const char *value = parser->entry->value;
	if (strcmp(parser->entry->key, "url") != 0)
		return fail(parser, "a source has url, but no key", parser->entry->key);
	const char *host =
		strncmp(value, "https://", 8) == 0 ? value + 8 : (strncmp(value, "http://", 7) == 0 ? value + 7 : "");
	if (!is_host(host))
		return fail(parser, "a source's url is http://NAME:PORT or https://NAME:PORT, not", value);
	return copy(parser, value, &source->url);
}

static int read_entry(const Parser *parser)
{
	NetHost *host = NULL;
	NetSource *source = NULL;
	bool is_source = strcmp(parser->entry->section, "source") == 0;
	int r = is_source ? find_source(parser, &source) : find_host(parser, &host);
	if (r < 0 || !parser->entry->key)
		return r;
	return is_source ? read_source_key(parser, source) : read_host_key(parser, host);
}

int net_hosts_parse(const Conf *conf, NetHosts *ret_hosts, Error *error)
{
	_cleanup_(net_hosts_done) NetHosts hosts = { 0 };
	for (size_t i = 0; i < conf->count; i++) {
		Parser parser = { .conf = conf, .entry = &conf->entries[i], .hosts = &hosts, .error = error };
		if (!net_hosts_has_section(parser.entry->section))
			continue;
		int r = read_entry(&parser);
		if (r < 0)
			return r;
	}
	for (size_t i = 0; i < hosts.source_count; i++)
		if (!hosts.sources[i].url)
			return error_set(error, -EINVAL, "%s: [source %.200s] has no url", conf->path,
					 hosts.sources[i].name);
	*ret_hosts = hosts;
	hosts = (NetHosts){ 0 };
	return 0;
}

/* "user:password" of a section, malloc'ed; NULL: it names nobody. */
static int read_user(const NetHost *entry, char **ret_user, Error *error)
{
	_cleanup_free_ char *text = NULL;
	size_t size;
	if (!entry->user)
		return 0;
	if (!entry->password_file) {
		*ret_user = strdup(entry->user);
		return *ret_user ? 0 : error_set(error, -ENOMEM, "out of memory");
	}
	int r = fd_read_file(AT_FDCWD, entry->password_file, PASSWORD_MAX, &text, &size);
	if (r < 0)
		return error_set(error, r, "the password of %s cannot be read from %s: %s", entry->name,
				 entry->password_file, error_text(NULL, r));
	text[strcspn(text, "\r\n")] = '\0';
	if (asprintf(ret_user, "%s:%s", entry->user, text) < 0)
		*ret_user = NULL;
	OPENSSL_cleanse(text, size);
	return *ret_user ? 0 : error_set(error, -ENOMEM, "out of memory");
}

/* One host by its section, or by none. */
static int load_one(const NetHost *entry, const NetAccessOptions *given, const char *host, NetAccess *ret_access,
		    Error *error)
{
	NetAccessOptions options = *given;
	char *user = NULL;
	int r = entry && !options.user && !options.login ? read_user(entry, &user, error) : 0;
	if (r < 0)
		return r;
	if (user)
		options.user = user;
	if (entry && !options.login)
		options.login = entry->login;
	if (entry && !options.ca)
		options.ca = entry->ca;
	if (entry && !options.certificate && !options.key) {
		options.certificate = entry->certificate;
		options.key = entry->key;
	}
	r = net_access_load(&options, host, ret_access, error);
	net_secret_wipe(&user);
	return r;
}

/* A mirror gets nothing that is for the host itself, nor what somebody named for that by hand. */
static int load_mirror(const NetHosts *hosts, const NetAccessOptions *options, const char *name, NetAccess *access,
		       Error *error)
{
	const NetHost *entry = net_hosts_find(hosts, name);
	NetMirror *mirror = &access->mirrors[access->mirror_count];
	mirror->access = calloc(1, sizeof(*mirror->access));
	if (!mirror->access)
		return error_set(error, -ENOMEM, "out of memory");
	access->mirror_count++;
	int r = load_one(entry, &(NetAccessOptions){ .certs = options->certs }, name, mirror->access, error);
	if (r < 0)
		return error_prefix(error, r, "mirror %s", name);
	mirror->base = net_access_base(mirror->access, name, entry && entry->plain_http);
	return mirror->base ? 0 : error_set(error, -ENOMEM, "out of memory");
}

static bool is_among(const NetAccess *access, const char *base)
{
	for (size_t i = 0; i < access->mirror_count; i++)
		if (strcmp(access->mirrors[i].base, base) == 0)
			return true;
	return false;
}

/* A source is for when others fail: one that cannot be used is no reason to fail now. Errors: -ENOMEM. */
static int load_sources(const NetHosts *hosts, const NetAccessOptions *options, const char *own_base, NetAccess *access)
{
	for (size_t i = 0; i < hosts->source_count && access->mirror_count < NET_MIRRORS_MAX; i++) {
		const char *url = hosts->sources[i].url, *name = strstr(url, "://") + 3;
		NetMirror *mirror = &access->mirrors[access->mirror_count];
		NetAccess loaded = { 0 };
		if (strcmp(url, own_base) == 0 || is_among(access, url) ||
		    load_one(net_hosts_find(hosts, name), &(NetAccessOptions){ .certs = options->certs }, name, &loaded,
			     NULL) < 0)
			continue;
		mirror->is_source = true;
		mirror->base = strdup(url);
		mirror->access = calloc(1, sizeof(*mirror->access));
		access->mirror_count++;
		if (!mirror->base || !mirror->access) {
			net_access_done(&loaded);
			return -ENOMEM;
		}
		*mirror->access = loaded;
	}
	return 0;
}

int net_hosts_load(const NetHosts *hosts, const NetAccessOptions *options, const char *host, bool plain_http,
		   NetAccess *ret_access, char **ret_base, Error *error)
{
	const NetHost *entry = net_hosts_find(hosts, host);
	_cleanup_(net_access_done) NetAccess access = { 0 };
	int r = load_one(entry, options, host, &access, error);
	if (r < 0)
		return r;
	access.mirrors = calloc(NET_MIRRORS_MAX, sizeof(*access.mirrors));
	if (!access.mirrors)
		return error_set(error, -ENOMEM, "out of memory");
	for (size_t i = 0; r == 0 && entry && i < entry->mirror_count; i++)
		r = load_mirror(hosts, options, entry->mirrors[i], &access, error);
	if (r < 0)
		return r;
	_cleanup_free_ char *base = net_access_base(&access, host, plain_http || (entry && entry->plain_http));
	if (!base || (hosts && load_sources(hosts, options, base, &access) < 0))
		return error_set(error, -ENOMEM, "out of memory");
	*ret_base = TAKE_PTR(base);
	*ret_access = access;
	access = (NetAccess){ 0 };
	return 0;
}
