/*
 * The authority that a server makes for itself, and TLS between `imgfs serve` and the client of fs/net: who is believed, who is let in, and
 * what is said to whoever is not.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>
#include <netinet/in.h>

#include "fs/base/fd.h"
#include "fs/net/net-http.h"
#include "layer-fixture.h"
#include "tools/serve/authority.h"
#include "tools/serve/certificate.h"
#include "tools/serve/serve-listen.h"
#include "tools/serve/serve-names.h"
#include "tools/serve/serve.h"

#define DAY (24 * 3600)

static const char *const NAMES[] = { "127.0.0.1", "localhost", "build.example" };

/* Somebody who can sign. */
typedef struct Signer {
	EVP_PKEY *key;
	X509 *certificate;
} Signer;

typedef struct Context {
	char path[STORE_FIXTURE_PATH];
	Store *store;
	Signer ca, other;
	char *ca_pem;
} Context;

static void signer_make(Signer *signer, const char *name)
{
	CertificatePlan plan = { .subject = name, .authority = true, .valid_from = -DAY, .valid_until = DAY };
	assert_int_equal(certificate_key_new(&signer->key), 0);
	assert_int_equal(certificate_new(&plan, signer->key, NULL, NULL, &signer->certificate), 0);
}

static void signer_done(Signer *signer)
{
	EVP_PKEY_free(signer->key);
	X509_free(signer->certificate);
}

static char *pem_of(X509 *certificate)
{
	char *pem;
	size_t size;
	assert_int_equal(certificate_encode(certificate, &pem, &size), 0);
	return pem;
}

static int set_up(void **state)
{
	Context *context = calloc(1, sizeof(*context));
	context->store = store_fixture_make(context->path);
	signer_make(&context->ca, "an authority");
	signer_make(&context->other, "another authority");
	context->ca_pem = pem_of(context->ca.certificate);
	*state = context;
	return 0;
}

static int tear_down(void **state)
{
	Context *context = *state;
	(void)store_free(context->store);
	store_fixture_remove(context->path);
	signer_done(&context->ca);
	signer_done(&context->other);
	free(context->ca_pem);
	free(context);
	return 0;
}

static char *path_in(const Context *context, const char *name)
{
	char *path;
	assert_true(asprintf(&path, "%s/%s", context->path, name) > 0);
	return path;
}

static void write_file(const Context *context, const char *name, const char *text)
{
	_cleanup_free_ char *path = path_in(context, name);
	assert_int_equal(fd_replace_file(AT_FDCWD, path, text, strlen(text), 0600), 0);
}

/* A certificate of `signer`; PEM of it and its key are the caller's. */
static void issue(const Signer *signer, const CertificatePlan *plan, char **ret_certificate, char **ret_key)
{
	_cleanup_(evp_pkey_free_p) EVP_PKEY *key = NULL;
	_cleanup_(x509_free_p) X509 *certificate = NULL;
	size_t size;
	assert_int_equal(certificate_key_new(&key), 0);
	assert_int_equal(certificate_new(plan, key, signer->certificate, signer->key, &certificate), 0);
	*ret_certificate = pem_of(certificate);
	assert_int_equal(certificate_key_encode(key, ret_key, &size), 0);
}

/* Puts server.crt and server.key into the test's directory. */
static void issue_server(const Context *context, const Signer *signer, const char *const *names, size_t count,
			 int64_t from, int64_t until)
{
	CertificatePlan plan = {
		.subject = "server", .names = names, .name_count = count, .valid_from = from, .valid_until = until
	};
	_cleanup_free_ char *certificate = NULL;
	_cleanup_free_ char *key = NULL;
	issue(signer, &plan, &certificate, &key);
	write_file(context, "server.crt", certificate);
	write_file(context, "server.key", key);
}

typedef struct Running {
	ServeTls *tls;
	ServeAuth *auth;
	Server *server;
	unsigned port;
} Running;

static void start(const Context *context, const char *client_ca, const char *htpasswd, Running *running)
{
	_cleanup_free_ char *certificate = path_in(context, "server.crt");
	_cleanup_free_ char *key = path_in(context, "server.key");
	ServeTlsFiles files = { .certificate = certificate, .key = key, .client_ca = client_ca, .ca = certificate };
	Error error = { 0 };
	ServeAddress wanted, actual;
	struct sockaddr_in four;
	int r = serve_tls_new(&files, &running->tls, &error);
	if (r == 0 && htpasswd)
		r = serve_auth_new(htpasswd, &running->auth, &error);
	if (r < 0)
		fail_msg("%s", error_text(&error, r));
	ServeOptions options = { .store = context->store,
				 .access_log_fd = -1,
				 .connections = 100,
				 .tls = running->tls,
				 .auth = running->auth };
	assert_int_equal(serve_address_parse("127.0.0.1:0", &wanted, NULL), 0);
	assert_int_equal(serve_listen(&wanted, &options.listen_fd, &actual, NULL), 0);
	assert_int_equal(server_start(&options, &running->server, &error), 0);
	memcpy(&four, &actual.storage, sizeof(four));
	running->port = ntohs(four.sin_port);
}

static void stop(Running *running)
{
	(void)server_stop(running->server);
	(void)serve_tls_free(running->tls);
	(void)serve_auth_free(running->auth);
	*running = (Running){ 0 };
}

static int ask_with(NetHttp *http, const char *host, unsigned port, const char *path, Error *error)
{
	char url[256];
	NetResponse response = { 0 };
	(void)snprintf(url, sizeof(url), "https://%s:%u%s", host, port, path);
	NetRequest request = { .url = url, .size = 65536 };
	int r = net_http_perform(http, &request, 1, &response, error);
	net_response_done(&response);
	return r;
}

static int ask(const Running *running, const char *host, const char *path, const NetAccess *access, Error *error)
{
	_cleanup_(net_http_free_p) NetHttp *http = NULL;
	assert_int_equal(net_http_new(10000, &http), 0);
	net_http_set_access(http, access);
	return ask_with(http, host, running->port, path, error);
}

/* The sentence must hold each of the words; NULL ends them. */
static void expect_refusal(int r, int code, const Error *error, const char *const *words)
{
	if (r != code)
		fail_msg("%d instead of %d: %s", r, code, error->message);
	for (; *words; words++)
		if (!strstr(error->message, *words))
			fail_msg("no \"%s\" in: %s", *words, error->message);
}

#define EXPECT_REFUSAL(r, code, error, ...) \
	expect_refusal((r), (code), (error), (const char *const[]){ __VA_ARGS__, NULL })

static void test_certificates_of_servers(void **state)
{
	Context *context = *state;
	Running running = { 0 };
	Error error = { 0 };
	char host[32];
	_cleanup_free_ char *other_pem = pem_of(context->other.certificate);
	NetAccess access = { .ca = context->ca_pem }, other = { .ca = other_pem };
	issue_server(context, &context->ca, NAMES, ELEMENTS(NAMES), -DAY, DAY);
	start(context, NULL, NULL, &running);
	(void)snprintf(host, sizeof(host), "127.0.0.1:%u", running.port);
	assert_int_equal(ask(&running, "127.0.0.1", "/v2/", &access, &error), 0);
	assert_int_equal(ask(&running, "localhost", "/v2/", &access, &error), 0);
	EXPECT_REFUSAL(ask(&running, "127.0.0.1", "/v2/", &other, &error), -EKEYREJECTED, &error, host, "imgfs trust ",
		       "--fingerprint");
	EXPECT_REFUSAL(ask(&running, "127.0.0.1", "/v2/", NULL, &error), -EKEYREJECTED, &error, host, "imgfs trust ");
	EXPECT_REFUSAL(ask(&running, "127.0.0.2", "/v2/", &access, &error), -EHOSTUNREACH, &error, "127.0.0.2");
	stop(&running);

	issue_server(context, &context->ca, NAMES + 1, 2, -DAY, DAY);
	start(context, NULL, NULL, &running);
	(void)snprintf(host, sizeof(host), "127.0.0.1:%u", running.port);
	EXPECT_REFUSAL(ask(&running, "127.0.0.1", "/v2/", &access, &error), -EKEYREJECTED, &error, host, "other names",
		       "--tls-name");
	stop(&running);

	issue_server(context, &context->ca, NAMES, ELEMENTS(NAMES), -2 * DAY, -DAY);
	start(context, NULL, NULL, &running);
	(void)snprintf(host, sizeof(host), "127.0.0.1:%u", running.port);
	EXPECT_REFUSAL(ask(&running, "127.0.0.1", "/v2/", &access, &error), -EKEYREJECTED, &error, host, "has expired",
		       "clock");
	stop(&running);

	issue_server(context, &context->ca, NAMES, ELEMENTS(NAMES), DAY, 2 * DAY);
	start(context, NULL, NULL, &running);
	EXPECT_REFUSAL(ask(&running, "127.0.0.1", "/v2/", &access, &error), -EKEYREJECTED, &error, "not valid yet");
	stop(&running);
}

/* A renewed certificate is taken without a word; one of another authority is not, though the server was believed before. */
static void test_certificate_changes_between_requests(void **state)
{
	Context *context = *state;
	Running running = { 0 };
	Error error = { 0 };
	NetAccess access = { .ca = context->ca_pem };
	NetHttp *kept;
	issue_server(context, &context->ca, NAMES, ELEMENTS(NAMES), -DAY, DAY);
	start(context, NULL, NULL, &running);
	assert_int_equal(net_http_new(10000, &kept), 0);
	net_http_set_access(kept, &access);
	assert_int_equal(ask_with(kept, "127.0.0.1", running.port, "/v2/", &error), 0);
	issue_server(context, &context->ca, NAMES, ELEMENTS(NAMES), -DAY, 3 * DAY);
	int64_t before = serve_tls_not_after(running.tls);
	assert_int_equal(serve_tls_reload(running.tls, &error), 0);
	assert_true(serve_tls_not_after(running.tls) - before > DAY);
	assert_int_equal(ask(&running, "127.0.0.1", "/v2/", &access, &error), 0);

	issue_server(context, &context->other, NAMES, ELEMENTS(NAMES), -DAY, DAY);
	assert_int_equal(serve_tls_reload(running.tls, &error), 0);
	assert_int_equal(ask_with(kept, "127.0.0.1", running.port, "/v2/", &error),
			 0); /* its connection still stands */
	EXPECT_REFUSAL(ask(&running, "127.0.0.1", "/v2/", &access, &error), -EKEYREJECTED, &error, "imgfs trust ");

	write_file(context, "server.crt", "rubbish");
	assert_int_equal(serve_tls_reload(running.tls, &error), -EBADMSG);
	assert_non_null(strstr(error.message, "server.crt"));
	assert_int_equal(ask_with(kept, "127.0.0.1", running.port, "/v2/", &error), 0);
	(void)net_http_free(kept);
	stop(&running);
}

static void test_client_certificates(void **state)
{
	Context *context = *state;
	Running running = { 0 };
	Error error = { 0 };
	CertificatePlan good = { .subject = "node", .client = true, .valid_from = -DAY, .valid_until = DAY };
	CertificatePlan past = { .subject = "node", .client = true, .valid_from = -2 * DAY, .valid_until = -DAY };
	CertificatePlan server = { .subject = "node", .valid_from = -DAY, .valid_until = DAY };
	const struct {
		const Signer *signer;
		const CertificatePlan *plan;
		int result;
	} cases[] = {
		{ &context->ca, &good, 0 },
		{ &context->other, &good, -EACCES },
		{ &context->ca, &past, -EACCES },
		{ &context->ca, &server, -EACCES }, /* of a server, shown by a client */
	};
	write_file(context, "client-ca.crt", context->ca_pem);
	_cleanup_free_ char *client_ca = path_in(context, "client-ca.crt");
	issue_server(context, &context->ca, NAMES, ELEMENTS(NAMES), -DAY, DAY);
	start(context, client_ca, NULL, &running);
	for (size_t i = 0; i < ELEMENTS(cases); i++) {
		NetAccess access = { .ca = context->ca_pem };
		issue(cases[i].signer, cases[i].plan, &access.certificate, &access.key);
		int r = ask(&running, "127.0.0.1", "/v2/", &access, &error);
		if (r != cases[i].result)
			fail_msg("case %zu: %d: %s", i, r, error.message);
		free(access.certificate);
		free(access.key);
	}
	NetAccess none = { .ca = context->ca_pem };
	EXPECT_REFUSAL(ask(&running, "127.0.0.1", "/v2/", &none, &error), -EACCES, &error, "127.0.0.1", "client.cert",
		       "client.key");
	assert_int_equal(ask(&running, "127.0.0.1", "/metrics", &none, &error), -EACCES);
	assert_int_equal(ask(&running, "127.0.0.1", "/healthz", &none, &error), 0);
	assert_int_equal(ask(&running, "127.0.0.1", "/imgfs/ca.pem", &none, &error), 0);
	NetAccess broken = { .ca = context->ca_pem, .certificate = context->ca_pem, .key = context->ca_pem };
	EXPECT_REFUSAL(ask(&running, "127.0.0.1", "/v2/", &broken, &error), -EKEYREJECTED, &error, "client.key");
	stop(&running);
}

static void test_passwords(void **state)
{
	Context *context = *state;
	Running running = { 0 };
	Error error = { 0 };
	char right[] = "ann:secret", wrong[] = "ann:wrong";
	write_file(context, "users", "ann:$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n");
	_cleanup_free_ char *users = path_in(context, "users");
	issue_server(context, &context->ca, NAMES, ELEMENTS(NAMES), -DAY, DAY);
	start(context, NULL, users, &running);
	NetAccess access = { .ca = context->ca_pem, .user = right };
	assert_int_equal(ask(&running, "127.0.0.1", "/v2/", &access, &error), 0);
	access.user = wrong;
	EXPECT_REFUSAL(ask(&running, "127.0.0.1", "/v2/", &access, &error), -EACCES, &error, "user and password");
	access.user = NULL;
	EXPECT_REFUSAL(ask(&running, "127.0.0.1", "/metrics", &access, &error), -EACCES, &error, "docker login");
	assert_int_equal(ask(&running, "127.0.0.1", "/healthz", &access, &error), 0);
	/* Who takes any certificate gives no password away. */
	NetAccess unverified = { .unverified = true, .user = right };
	assert_int_equal(ask(&running, "127.0.0.1", "/v2/", &unverified, &error), -EACCES);
	assert_int_equal(ask(&running, "127.0.0.1", "/imgfs/ca.pem", &unverified, &error), 0);
	stop(&running);
}

static int mode_of(const Context *context, const char *name)
{
	struct stat status;
	_cleanup_free_ char *path = path_in(context, name);
	assert_int_equal(stat(path, &status), 0);
	return status.st_mode & 07777;
}

static char *read_text(const Context *context, const char *name)
{
	_cleanup_free_ char *path = path_in(context, name);
	char *text;
	size_t size;
	assert_int_equal(fd_read_file(AT_FDCWD, path, 65536, &text, &size), 0);
	return text;
}

static void test_authority(void **state)
{
	Context *context = *state;
	Error error = { 0 };
	Digest first, again;
	_cleanup_free_ char *directory = path_in(context, "tls");
	int r = authority_ensure(directory, NAMES, ELEMENTS(NAMES), &first, &error);
	if (r != 1)
		fail_msg("%d: %s", r, error.message);
	assert_int_equal(mode_of(context, "tls"), 0700);
	assert_int_equal(mode_of(context, "tls/ca.key"), 0600);
	assert_int_equal(mode_of(context, "tls/server.key"), 0600);
	_cleanup_free_ char *certificate = read_text(context, "tls/server.crt");
	_cleanup_(x509_free_p) X509 *x509 = NULL;
	assert_int_equal(certificate_decode(certificate, strlen(certificate), &x509), 0);
	assert_true(certificate_time_left(x509) > 80 * DAY);
	assert_false(certificate_is_authority(x509));
	for (size_t i = 0; i < ELEMENTS(NAMES); i++)
		assert_true(certificate_has_name(x509, NAMES[i]));
	assert_false(certificate_has_name(x509, "elsewhere"));
	assert_false(certificate_has_name(x509, "127.0.0.2"));

	/* The next start uses the same; one more name makes a new certificate of the same authority. */
	assert_int_equal(authority_ensure(directory, NAMES, ELEMENTS(NAMES), &again, &error), 0);
	assert_true(digest_equal(&first, &again));
	assert_int_equal(authority_ensure(directory, NAMES, 1, &again, &error), 0);
	const char *const more[] = { "127.0.0.1", "fe80::1" };
	assert_int_equal(authority_ensure(directory, more, 2, &again, &error), 1);
	assert_true(digest_equal(&first, &again));
	const char *const bad[] = { "a name", "x,DNS:y" };
	for (size_t i = 0; i < ELEMENTS(bad); i++)
		assert_int_equal(authority_ensure(directory, &bad[i], 1, &again, &error), -EINVAL);
}

/* A certificate near its end, not yet begun, of another authority or for another key is made anew; a damaged key is not papered over. */
static void test_authority_renews(void **state)
{
	Context *context = *state;
	Error error = { 0 };
	Digest first, again;
	size_t size;
	_cleanup_free_ char *directory = path_in(context, "renewed");
	assert_int_equal(authority_ensure(directory, NAMES, 1, &first, &error), 1);
	_cleanup_free_ char *ca_key_pem = read_text(context, "renewed/ca.key");
	_cleanup_free_ char *ca_pem = read_text(context, "renewed/ca.crt");
	_cleanup_free_ char *key_pem = read_text(context, "renewed/server.key");
	Signer ca = { 0 };
	_cleanup_(evp_pkey_free_p) EVP_PKEY *key = NULL;
	assert_int_equal(certificate_key_decode(ca_key_pem, strlen(ca_key_pem), &ca.key), 0);
	assert_int_equal(certificate_decode(ca_pem, strlen(ca_pem), &ca.certificate), 0);
	assert_int_equal(certificate_key_decode(key_pem, strlen(key_pem), &key), 0);
	/* What the authority was called before somebody removed ca.crt alone. */
	CertificatePlan earlier = { .subject = "earlier", .authority = true, .valid_from = -DAY, .valid_until = DAY };
	Signer before = { .key = ca.key };
	assert_int_equal(certificate_new(&earlier, ca.key, NULL, NULL, &before.certificate), 0);
	CertificatePlan plan = { .subject = "x", .names = NAMES, .name_count = 1 };
	const struct {
		const Signer *signer;
		int64_t from, until;
		int result;
	} cases[] = {
		{ &ca, -DAY, 31 * DAY, 0 },    { &ca, -DAY, 29 * DAY, 1 },          { &ca, -DAY, -DAY / 2, 1 },
		{ &ca, DAY / 2, 80 * DAY, 1 }, { &context->ca, -DAY, 80 * DAY, 1 }, { &before, -DAY, 80 * DAY, 1 },
	};
	for (size_t i = 0; i < ELEMENTS(cases); i++) {
		_cleanup_(x509_free_p) X509 *certificate = NULL;
		plan.valid_from = cases[i].from;
		plan.valid_until = cases[i].until;
		assert_int_equal(
			certificate_new(&plan, key, cases[i].signer->certificate, cases[i].signer->key, &certificate),
			0);
		_cleanup_free_ char *pem = NULL;
		assert_int_equal(certificate_encode(certificate, &pem, &size), 0);
		write_file(context, "renewed/server.crt", pem);
		assert_int_equal(authority_ensure(directory, NAMES, 1, &again, &error), cases[i].result);
		assert_true(digest_equal(&first, &again));
	}
	_cleanup_free_ char *kept = read_text(context, "renewed/server.key");
	assert_string_equal(kept, key_pem);
	write_file(context, "renewed/ca.key", key_pem);
	EXPECT_REFUSAL(authority_ensure(directory, NAMES, 1, &again, &error), -EBADMSG, &error, "ca.crt",
		       "imgfs trust");
	write_file(context, "renewed/ca.key", "");
	EXPECT_REFUSAL(authority_ensure(directory, NAMES, 1, &again, &error), -EBADMSG, &error, "ca.key");
	X509_free(before.certificate);
	signer_done(&ca);
}

static bool has(const ServeNames *names, const char *name)
{
	for (size_t i = 0; i < names->count; i++)
		if (strcmp(names->names[i], name) == 0)
			return true;
	return false;
}

static void test_names(void **state _unused_)
{
	ServeAddress address;
	ServeNames names;
	char text[256];
	static const char *const extra[] = { "build.example", "2001:db8::1", "localhost" };
	assert_int_equal(serve_address_parse("127.0.0.3:8500", &address, NULL), 0);
	assert_int_equal(serve_names_collect(&address, extra, ELEMENTS(extra), &names), 0);
	assert_true(has(&names, "localhost") && has(&names, "127.0.0.3") && has(&names, "build.example") &&
		    has(&names, "2001:db8::1"));
	assert_false(has(&names, "127.0.0.1"));
	serve_names_done(&names);
	serve_names_best(&address, extra, ELEMENTS(extra), text, sizeof(text));
	assert_string_equal(text, "build.example:8500");
	serve_names_best(&address, extra + 1, 1, text, sizeof(text));
	assert_string_equal(text, "[2001:db8::1]:8500");
	serve_names_best(&address, NULL, 0, text, sizeof(text));
	assert_string_equal(text, "127.0.0.3:8500");
	assert_int_equal(serve_address_parse("0.0.0.0:8500", &address, NULL), 0);
	assert_int_equal(serve_names_collect(&address, NULL, 0, &names), 0);
	assert_true(has(&names, "127.0.0.1"));
	assert_false(has(&names, "0.0.0.0"));
	serve_names_done(&names);
	serve_names_best(&address, NULL, 0, text, sizeof(text));
	assert_null(strstr(text, "0.0.0.0"));
}

static void test_files_that_are_refused(void **state)
{
	Context *context = *state;
	Error error = { 0 };
	ServeTls *tls = NULL;
	issue_server(context, &context->ca, NAMES, 1, -DAY, DAY);
	_cleanup_free_ char *certificate = path_in(context, "server.crt");
	_cleanup_free_ char *key = path_in(context, "server.key");
	ServeTlsFiles files = { .certificate = certificate, .key = certificate };
	EXPECT_REFUSAL(serve_tls_new(&files, &tls, &error), -EBADMSG, &error, certificate);
	files.key = "/nowhere/server.key";
	EXPECT_REFUSAL(serve_tls_new(&files, &tls, &error), -ENOENT, &error, "--tls-key", "/nowhere/server.key");
	files.key = key;
	files.client_ca = key;
	EXPECT_REFUSAL(serve_tls_new(&files, &tls, &error), -EBADMSG, &error, "--client-ca");
	_cleanup_free_ char *other = NULL;
	_cleanup_free_ char *other_key = NULL;
	issue(&context->ca, &(CertificatePlan){ .subject = "x", .valid_until = DAY }, &other, &other_key);
	write_file(context, "server.key", other_key);
	files.client_ca = NULL;
	assert_int_equal(serve_tls_new(&files, &tls, &error), -EBADMSG);
	assert_null(tls);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_certificates_of_servers),
		cmocka_unit_test(test_certificate_changes_between_requests),
		cmocka_unit_test(test_client_certificates),
		cmocka_unit_test(test_passwords),
		cmocka_unit_test(test_authority),
		cmocka_unit_test(test_authority_renews),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_files_that_are_refused),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
