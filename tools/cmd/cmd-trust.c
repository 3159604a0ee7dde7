/* imgfs trust: makes this machine believe a server's private authority, after its fingerprint. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "fs/base/fd.h"
#include "fs/format/reference.h"
#include "fs/net/net-http.h"
#include "tools/cmd/remote-options.h"
#include "tools/cmd/trust-files.h"
#include "tools/cmd/verbs.h"
#include "tools/serve/certificate.h"

#define VERB "trust"

#define PEM_MAX 65536u
#define TIMEOUT 10000

enum { OPTION_FINGERPRINT = VERB_OPTION_LONG, OPTION_FROM, OPTION_ROOT, OPTION_REMOVE };

const VerbOption cmd_trust_options[] = {
	{ "fingerprint", OPTION_FINGERPRINT, "sha256:HEX", "of the authority, as `imgfs serve --tls-auto` prints it" },
	{ "from", OPTION_FROM, "FILE", "take the authority from a file, PEM, instead of from the server" },
	{ "root", OPTION_ROOT, "DIR", "install below DIR/etc instead of /etc" },
	{ "remove", OPTION_REMOVE, NULL, "trust it no more" },
	{ 0 },
};

typedef struct TrustCommand {
	const char *host;
	const char *from;
	const char *root;
	bool remove;
	bool has_fingerprint;
	Digest fingerprint;
} TrustCommand;

static int parse_option(int id, TrustCommand *command)
{
	switch (id) {
	case OPTION_FINGERPRINT:
		if (digest_from_text(optarg, &command->fingerprint) < 0)
			return verb_usage_error(VERB, "--fingerprint %s: give \"sha256:\" and 64 lower-case hex digits",
						optarg);
		command->has_fingerprint = true;
		return VERB_SUCCESS;
	case OPTION_FROM:
		command->from = optarg;
		return VERB_SUCCESS;
	case OPTION_ROOT:
		command->root = optarg;
		return VERB_SUCCESS;
	case OPTION_REMOVE:
		command->remove = true;
		return VERB_SUCCESS;
	default:
		return VERB_USAGE;
	}
}

static int parse(int argc, char **argv, TrustCommand *command)
{
	for (int id; (id = verb_getopt(argc, argv, cmd_trust_options)) != -1;) {
		int status = parse_option(id, command);
		if (status != VERB_SUCCESS)
			return status;
	}
	if (argc - optind != 1)
		return verb_usage_error(VERB, "give one server, HOST:PORT");
	command->host = argv[optind];
	/* The host becomes the name of a directory, and part of a file for containerd. */
	if (!remote_options_is_host(command->host))
		return verb_usage_error(VERB, "%s is no server: write HOST:PORT, as in build:8500", command->host);
	if (command->remove && (command->from || command->has_fingerprint))
		return verb_usage_error(VERB, "--remove takes neither --from nor --fingerprint");
	if (!command->remove && !command->from && !command->has_fingerprint)
		return verb_usage_error(
			VERB,
			"give the --fingerprint that `imgfs serve --tls-auto` printed there: without it anyone on "
			"the way could be that server");
	return VERB_SUCCESS;
}

/* One request for the authority's certificate. */
static int ask(const TrustCommand *command, const NetAccess *access, char **ret_pem, size_t *ret_size, Error *error)
{
	_cleanup_(net_http_free_p) NetHttp *http = NULL;
	_cleanup_free_ char *url = NULL;
	if (asprintf(&url, "https://%s/imgfs/ca.pem", command->host) < 0 || net_http_new(TIMEOUT, &http) < 0)
		return error_set(error, -ENOMEM, "out of memory");
	net_http_set_access(http, access);
	NetRequest request = { .url = url, .size = PEM_MAX };
	NetResponse response = { 0 };
	int r = net_http_perform(http, &request, 1, &response, error);
	if (r == -ENOENT)
		return error_prefix(error, r,
				    "%s has no authority of its own: was it started with --tls-auto? Otherwise get "
				    "the certificate of its authority and give it by --from",
				    command->host);
	if (r < 0)
		return r;
	*ret_pem = (char *)response.body;
	*ret_size = response.size;
	return 0;
}

static int get_pem(const TrustCommand *command, char **ret_pem, size_t *ret_size, Error *error)
{
	if (!command->from) /* what comes is believed only after its fingerprint */
		return ask(command, &(NetAccess){ .unverified = true }, ret_pem, ret_size, error);
	int r = fd_read_file(AT_FDCWD, command->from, PEM_MAX, ret_pem, ret_size);
	return r < 0 ? error_set(error, r, "%s cannot be read: %s", command->from, error_text(NULL, r)) : 0;
}

static int check_fingerprint(const TrustCommand *command, X509 *certificate, Error *error)
{
	Digest actual;
	char actual_text[DIGEST_TEXT_SIZE], wanted_text[DIGEST_TEXT_SIZE];
	if (certificate_fingerprint(certificate, &actual) < 0)
		return error_set(error, -ENOMEM, "out of memory");
	if (!command->has_fingerprint || digest_equal(&actual, &command->fingerprint))
		return 0;
	return error_set(error, -EKEYREJECTED,
			 "the authority of %s has fingerprint %s, not %s: somebody may stand between; look at what "
			 "`imgfs serve` "
			 "printed there. Nothing was installed",
			 command->host, digest_text(&actual, actual_text),
			 digest_text(&command->fingerprint, wanted_text));
}

/* Takes one certificate, and writes it as text anew: nothing that stood around it is installed. */
static int check(const TrustCommand *command, const char *pem, size_t size, char **ret_pem, size_t *ret_size,
		 Error *error)
{
	_cleanup_(x509_free_p) X509 *certificate = NULL;
	const char *source = command->from ?: command->host;
	if (!pem || certificate_decode(pem, size, &certificate) < 0)
		return error_set(error, -EBADMSG, "what %s gives is not one certificate in PEM", source);
	int r = check_fingerprint(command, certificate, error);
	if (r < 0)
		return r;
	if (!certificate_is_authority(certificate))
		return error_set(error, -EBADMSG, "the certificate that %s gives is not one of an authority", source);
	if (certificate_time_left(certificate) < 0)
		return error_set(error, -EKEYREJECTED, "the authority that %s gives has expired", source);
	return certificate_encode(certificate, ret_pem, ret_size) < 0 ? error_set(error, -ENOMEM, "out of memory") : 0;
}

/* Is the server, asked again as everybody will ask it, one of that authority, and named as it is called here? */
static int try(const TrustCommand *command, char *pem, Error *error)
{
	_cleanup_free_ char *again = NULL;
	size_t size;
	int r = ask(command, &(NetAccess){ .ca = pem }, &again, &size, error);
	return r < 0 ? error_prefix(error, r, "nothing was installed") : 0;
}

static int trust(const TrustCommand *command, Error *error)
{
	_cleanup_free_ char *raw = NULL;
	_cleanup_free_ char *pem = NULL;
	size_t raw_size = 0, size = 0;
	int r = get_pem(command, &raw, &raw_size, error);
	if (r == 0)
		r = check(command, raw, raw_size, &pem, &size, error);
	if (r == 0 && !command->from)
		r = try(command, pem, error);
	if (r == 0)
		r = trust_files_install(command->root, command->host, pem, size, error);
	if (r < 0)
		return r;
	printf("%s is trusted by imgfs and docker, and by containerd where config_path (ctr: --hosts-dir) is "
	       "/etc/containerd/certs.d\n",
	       command->host);
	return 0;
}

int cmd_trust(int argc, char **argv)
{
	Error error = { 0 };
	TrustCommand command = { .root = "" };
	int status = parse(argc, argv, &command);
	if (status != VERB_SUCCESS)
		return status;
	int r = command.remove ? trust_files_remove(command.root, command.host, &error) : trust(&command, &error);
	return r < 0 ? verb_fail(VERB, r, &error) : VERB_SUCCESS;
}
