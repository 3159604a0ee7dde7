#include "tools/cmd/serve-secure.h"

#include <stdio.h>
#include <stdlib.h>

#include "fs/base/log.h"
#include "tools/serve/authority.h"
#include "tools/serve/serve-names.h"

static int ensure(ServeSecure *secure, Error *error)
{
	const ServeSecureOptions *options = secure->options;
	_cleanup_(serve_names_done) ServeNames names = { 0 };
	int r = serve_names_collect(&secure->address, options->names, options->name_count, &names);
	if (r < 0)
		return error_set(error, r, "the names of this machine cannot be told: %s", error_text(NULL, r));
	return authority_ensure(secure->directory, (const char *const *)names.names, names.count, &secure->fingerprint,
				error);
}

static int open_automatic(ServeSecure *secure, const char *store_path, Error *error)
{
	const ServeSecureOptions *options = secure->options;
	_cleanup_free_ char *certificate = NULL;
	_cleanup_free_ char *key = NULL;
	_cleanup_free_ char *ca = NULL;
	if (asprintf(&secure->directory, "%s%s", options->directory ?: store_path, options->directory ? "" : "/tls") <
		    0 ||
	    asprintf(&certificate, "%s/" AUTHORITY_CERTIFICATE_FILE, secure->directory) < 0 ||
	    asprintf(&key, "%s/" AUTHORITY_KEY_FILE, secure->directory) < 0 ||
	    asprintf(&ca, "%s/" AUTHORITY_CA_FILE, secure->directory) < 0)
		return error_set(error, -ENOMEM, "out of memory");
	int r = ensure(secure, error);
	if (r < 0)
		return r;
	ServeTlsFiles files = { .certificate = certificate, .key = key, .client_ca = options->client_ca, .ca = ca };
	return serve_tls_new(&files, &secure->tls, error);
}

static int open_all(ServeSecure *secure, const char *store_path, Error *error)
{
	const ServeSecureOptions *options = secure->options;
	int r = 0;
	if (options->automatic) {
		r = open_automatic(secure, store_path, error);
	} else if (options->certificate) {
		ServeTlsFiles files = { .certificate = options->certificate,
					.key = options->key,
					.client_ca = options->client_ca };
		r = serve_tls_new(&files, &secure->tls, error);
	}
	if (r == 0 && options->htpasswd)
		r = serve_auth_new(options->htpasswd, &secure->auth, error);
	return r;
}

int serve_secure_open(const ServeSecureOptions *options, const char *store_path, const ServeAddress *address,
		      ServeSecure *ret_secure, Error *error)
{
	ServeSecure secure = { .options = options, .address = *address };
	int r = open_all(&secure, store_path, error);
	if (r < 0) {
		serve_secure_close(&secure);
		return r;
	}
	*ret_secure = secure;
	return 0;
}

void serve_secure_close(ServeSecure *secure)
{
	(void)serve_tls_free(secure->tls);
	(void)serve_auth_free(secure->auth);
	free(secure->directory);
	*secure = (ServeSecure){ 0 };
}

void serve_secure_reload(ServeSecure *secure)
{
	Error error = { 0 };
	int r = secure->directory ? ensure(secure, &error) : 0;
	if (r >= 0 && secure->tls)
		r = serve_tls_reload(secure->tls, &error);
	if (r < 0)
		log_error("certificates stay what they were: %s", error_text(&error, r));
	else if (secure->tls)
		log_info("certificates were read again");
	r = secure->auth ? serve_auth_reload(secure->auth, &error) : 0;
	if (r < 0)
		log_error("users stay what they were: %s", error_text(&error, r));
	else if (secure->auth)
		log_info("users were read again");
}

void serve_secure_renew(ServeSecure *secure)
{
	Error error = { 0 };
	if (!secure->directory)
		return;
	int r = ensure(secure, &error);
	if (r > 0)
		r = serve_tls_reload(secure->tls, &error);
	else if (r == 0)
		return;
	if (r < 0)
		log_error("the certificate was not renewed: %s", error_text(&error, r));
	else
		log_info("the certificate was renewed");
}
