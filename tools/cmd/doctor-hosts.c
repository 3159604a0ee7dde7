/* Checks of the servers that images come from, and of what is trusted for them. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fs/base/fd.h"
#include "fs/cache/cache-contents.h"
#include "fs/net/net-hosts.h"
#include "fs/net/net-probe.h"
#include "tools/cmd/doctor.h"
#include "tools/cmd/verb-conf.h"
#include "tools/serve/certificate.h"

#define PEM_MAX   (1u << 20)
#define DAY       86400
#define SOON      (14 * DAY)
#define SKEW_MAX  30   /* seconds */
#define TIMEOUT   3000 /* milliseconds */
#define HOSTS_MAX 64u

static void say_expiry(Doctor *doctor, const char *what, int64_t left)
{
	if (left < 0)
		doctor_say(doctor, DOCTOR_BAD, "get a new one; look at this machine's clock as well", "%s has expired",
			   what);
	else if (left < SOON)
		doctor_say(doctor, DOCTOR_WARN, "renew it", "%s expires in %lld days", what, (long long)(left / DAY));
	else
		doctor_say(doctor, DOCTOR_GOOD, NULL, "%s is valid for %lld days", what, (long long)(left / DAY));
}

static void check_certificate(Doctor *doctor, const char *path)
{
	_cleanup_free_ char *pem = NULL;
	_cleanup_(x509_free_p) X509 *certificate = NULL;
	size_t size;
	int r = fd_read_file(AT_FDCWD, path, PEM_MAX, &pem, &size);
	if (r == -ENOENT)
		return;
	if (r == 0)
		r = certificate_decode(pem, size, &certificate);
	if (r == 0)
		say_expiry(doctor, path, certificate_time_left(certificate));
	else if (r != -EACCES)
		doctor_say(doctor, DOCTOR_NOTE, NULL, "%s is not one certificate; it was not looked at", path);
}

static void check_key(Doctor *doctor, const char *path)
{
	struct stat status;
	if (stat(path, &status) < 0 || !(status.st_mode & 077))
		return;
	if (doctor->fix && chmod(path, status.st_mode & 0700) == 0)
		doctor_say(doctor, DOCTOR_FIXED, NULL, "%s could be read by other users", path);
	else
		doctor_say(doctor, DOCTOR_BAD, "chmod 600, or --fix", "%s can be read by other users", path);
}

void doctor_certificates(Doctor *doctor)
{
	const char *directory = doctor->remote.access.certs ?: NET_CERTS_DIRECTORY;
	_cleanup_closedir_ DIR *list = opendir(directory);
	if (!list && errno == ENOENT && doctor->fix && fd_make_directories(AT_FDCWD, directory, 0755) == 0)
		doctor_say(doctor, DOCTOR_FIXED, NULL, "%s was made, for imgfs trust", directory);
	for (struct dirent *entry; list && (entry = readdir(list));) {
		char path[4096];
		if (entry->d_name[0] == '.')
			continue;
		(void)snprintf(path, sizeof(path), "%s/%s/ca.crt", directory, entry->d_name);
		check_certificate(doctor, path);
		(void)snprintf(path, sizeof(path), "%s/%s/client.cert", directory, entry->d_name);
		check_certificate(doctor, path);
		(void)snprintf(path, sizeof(path), "%s/%s/client.key", directory, entry->d_name);
		check_key(doctor, path);
	}
}

static void say_clock(Doctor *doctor, const char *host, const NetProbe *probe)
{
	int64_t skew = probe->date ? probe->date - (int64_t)time(NULL) : 0;
	if (skew > SKEW_MAX || skew < -SKEW_MAX)
		doctor_say(doctor, DOCTOR_WARN, "let both follow a time server (chrony, systemd-timesyncd)",
			   "the clock of %s is %lld seconds %s that of this machine", host,
			   (long long)(skew < 0 ? -skew : skew), skew > 0 ? "ahead of" : "behind");
}

static void check_host(Doctor *doctor, const char *host)
{
	_cleanup_(net_access_done) NetAccess access = { 0 };
	_cleanup_free_ char *base = NULL, *url = NULL, *health = NULL;
	NetProbe probe = { 0 }, healthy = { 0 };
	Error error = { 0 };
	NetAccessOptions options = { .certs = doctor->remote.access.certs };
	int r = net_hosts_load(verb_conf_hosts(), &options, host, false, &access, &base, &error);
	if (r == 0 && (asprintf(&url, "%s/v2/", base) < 0 || asprintf(&health, "%s/healthz", base) < 0))
		r = error_set(&error, -ENOMEM, "out of memory");
	if (r == 0)
		r = net_probe(url, &access, TIMEOUT, &probe, &error);
	if (r < 0) {
		doctor_say(doctor, DOCTOR_BAD,
			   r == -EKEYREJECTED ? "imgfs trust, after a look at the line that the server printed"
					      : "is the server up, and the way to it open?",
			   "%s: %s", host, error.message);
		return;
	}
	bool is_imgfs = net_probe(health, &access, TIMEOUT, &healthy, NULL) == 0 && healthy.status == 200;
	if (probe.status == 200 || probe.status == 401)
		doctor_say(doctor, DOCTOR_GOOD, NULL, "%s answers within %lld ms%s%s", url, (long long)probe.took,
			   is_imgfs ? ", and is healthy" : "", probe.status == 401 ? "; it wants a login" : "");
	else
		doctor_say(doctor, DOCTOR_BAD, "is it a registry? look at its log", "%s answers with status %ld", url,
			   probe.status);
	if (probe.not_after)
		say_expiry(doctor, "its certificate", probe.not_after - (int64_t)time(NULL));
	say_clock(doctor, host, &probe);
}

typedef struct HostList {
	char *names[HOSTS_MAX];
	size_t count;
} HostList;

static void add_host(HostList *list, const char *name)
{
	for (size_t i = 0; i < list->count; i++)
		if (strcmp(list->names[i], name) == 0)
			return;
	if (list->count < HOSTS_MAX && (list->names[list->count] = strdup(name)))
		list->count++;
}

/* Those whose images this node has seen. */
static void add_seen(Doctor *doctor, HostList *list)
{
	_cleanup_(cache_store_free_p) CacheStore *cache = NULL;
	CacheTag *tags = NULL;
	size_t count = 0;
	if (remote_options_cache(&doctor->remote, false, &cache, NULL) < 0 ||
	    cache_contents_tags(cache, &tags, &count) < 0)
		return;
	for (size_t i = 0; i < count; i++) {
		Reference reference;
		if (reference_parse_remote(tags[i].reference, &reference, NULL) == 0)
			add_host(list, reference.host);
	}
	cache_contents_tags_free(tags, count);
}

void doctor_hosts(Doctor *doctor)
{
	HostList list = { 0 };
	const NetHosts *hosts = verb_conf_hosts();
	for (int i = 0; i < doctor->host_count; i++)
		add_host(&list, doctor->hosts[i]);
	for (size_t i = 0; hosts && i < hosts->host_count; i++) {
		add_host(&list, hosts->hosts[i].name);
		for (size_t j = 0; j < hosts->hosts[i].mirror_count; j++)
			add_host(&list, hosts->hosts[i].mirrors[j]);
	}
	if (doctor->host_count == 0)
		add_seen(doctor, &list);
	for (size_t i = 0; i < list.count; i++) {
		check_host(doctor, list.names[i]);
		free(list.names[i]);
	}
	if (list.count == 0)
		doctor_say(doctor, DOCTOR_NOTE, "imgfs doctor HOST:PORT", "no server is known here");
}
