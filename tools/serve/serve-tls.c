#include "tools/serve/serve-tls.h"

#include <fcntl.h>
#include <gnutls/x509.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "fs/base/fd.h"

#define PEM_MAX (1u << 20)

struct ServeTlsKeys {
	atomic_uint references;
	gnutls_certificate_credentials_t credentials;
	bool wants_client;
	char *ca; /* NULL: none to give */
	int64_t not_after;
};

struct ServeTls {
	char *certificate, *key, *client_ca, *ca; /* paths */
	pthread_mutex_t lock;                     /* of `keys` */
	ServeTlsKeys *keys;
};

ServeTlsKeys *serve_tls_keys_unref(ServeTlsKeys *keys)
{
	/* Release and acquire: what other owners did with it is over before the last one frees it. */
	if (!keys || atomic_fetch_sub_explicit(&keys->references, 1, memory_order_acq_rel) > 1)
		return NULL;
	if (keys->credentials)
		gnutls_certificate_free_credentials(keys->credentials);
	free(keys->ca);
	free(keys);
	return NULL;
}
DEFINE_CLEANUP(ServeTlsKeys, serve_tls_keys_unref);

static int read_file(const char *path, const char *option, char **ret_text, gnutls_datum_t *ret_datum, Error *error)
{
	size_t size;
	int r = fd_read_file(AT_FDCWD, path, PEM_MAX, ret_text, &size);
	if (r < 0)
		return error_set(error, r, "%s %s cannot be read: %s", option, path, error_text(NULL, r));
	*ret_datum = (gnutls_datum_t){ .data = (unsigned char *)*ret_text, .size = (unsigned)size };
	return 0;
}

static int load_pair(const ServeTls *tls, ServeTlsKeys *keys, Error *error)
{
	_cleanup_free_ char *certificate_text = NULL;
	_cleanup_free_ char *key_text = NULL;
	gnutls_datum_t certificate, key;
	int r = read_file(tls->certificate, "--tls-cert", &certificate_text, &certificate, error);
	if (r == 0)
		r = read_file(tls->key, "--tls-key", &key_text, &key, error);
	if (r < 0)
		return r;
	int code = gnutls_certificate_set_x509_key_mem(keys->credentials, &certificate, &key, GNUTLS_X509_FMT_PEM);
	gnutls_memset(key_text, 0, key.size);
	if (code < 0)
		return error_set(error, -EBADMSG, "certificate %s and key %s cannot be used: %s", tls->certificate,
				 tls->key, gnutls_strerror(code));
	return 0;
}

static int load_client_ca(const ServeTls *tls, ServeTlsKeys *keys, Error *error)
{
	_cleanup_free_ char *text = NULL;
	gnutls_datum_t datum;
	if (!tls->client_ca)
		return 0;
	int r = read_file(tls->client_ca, "--client-ca", &text, &datum, error);
	if (r < 0)
		return r;
	int count = gnutls_certificate_set_x509_trust_mem(keys->credentials, &datum, GNUTLS_X509_FMT_PEM);
	if (count <= 0)
		return error_set(error, -EBADMSG, "--client-ca %s holds no certificate: %s", tls->client_ca,
				 count < 0 ? gnutls_strerror(count) : "it is empty");
	keys->wants_client = true;
	return 0;
}

static int read_end(ServeTlsKeys *keys)
{
	gnutls_x509_crt_t *chain = NULL;
	unsigned count = 0;
	if (gnutls_certificate_get_x509_crt(keys->credentials, 0, &chain, &count) < 0)
		return -EBADMSG;
	if (count > 0)
		keys->not_after = gnutls_x509_crt_get_expiration_time(chain[0]);
	for (unsigned i = 0; i < count; i++)
		gnutls_x509_crt_deinit(chain[i]);
	gnutls_free(chain);
	return 0;
}

static int load(const ServeTls *tls, ServeTlsKeys **ret_keys, Error *error)
{
	_cleanup_(serve_tls_keys_unref_p) ServeTlsKeys *keys = calloc(1, sizeof(*keys));
	if (!keys || gnutls_certificate_allocate_credentials(&keys->credentials) < 0)
		return error_set(error, -ENOMEM, "no memory for certificates");
	atomic_init(&keys->references, 1);
	int r = load_pair(tls, keys, error);
	if (r == 0)
		r = load_client_ca(tls, keys, error);
	gnutls_datum_t unused;
	if (r == 0 && tls->ca)
		r = read_file(tls->ca, "the authority", &keys->ca, &unused, error);
	if (r < 0)
		return r;
	if (read_end(keys) < 0)
		return error_set(error, -EBADMSG, "certificate %s cannot be read", tls->certificate);
	*ret_keys = TAKE_PTR(keys);
	return 0;
}

static char *copy(const char *text, bool *failed)
{
	char *twin = text ? strdup(text) : NULL;
	*failed = *failed || (text && !twin);
	return twin;
}

int serve_tls_new(const ServeTlsFiles *files, ServeTls **ret_tls, Error *error)
{
	bool failed = false;
	ServeTls *new = calloc(1, sizeof(*new));
	if (!new)
		return error_set(error, -ENOMEM, "no memory for certificates");
	(void)pthread_mutex_init(&new->lock, NULL);
	_cleanup_(serve_tls_free_p) ServeTls *tls = new;
	tls->certificate = copy(files->certificate, &failed);
	tls->key = copy(files->key, &failed);
	tls->client_ca = copy(files->client_ca, &failed);
	tls->ca = copy(files->ca, &failed);
	if (failed)
		return error_set(error, -ENOMEM, "no memory for certificates");
	int r = load(tls, &tls->keys, error);
	if (r < 0)
		return r;
	*ret_tls = TAKE_PTR(tls);
	return 0;
}

ServeTls *serve_tls_free(ServeTls *tls)
{
	if (!tls)
		return NULL;
	(void)serve_tls_keys_unref(tls->keys);
	(void)pthread_mutex_destroy(&tls->lock);
	free(tls->certificate);
	free(tls->key);
	free(tls->client_ca);
	free(tls->ca);
	free(tls);
	return NULL;
}

int serve_tls_reload(ServeTls *tls, Error *error)
{
	ServeTlsKeys *keys, *old;
	int r = load(tls, &keys, error);
	if (r < 0)
		return r;
	(void)pthread_mutex_lock(&tls->lock);
	old = tls->keys;
	tls->keys = keys;
	(void)pthread_mutex_unlock(&tls->lock);
	(void)serve_tls_keys_unref(old);
	return 0;
}

static ServeTlsKeys *current(ServeTls *tls)
{
	(void)pthread_mutex_lock(&tls->lock);
	ServeTlsKeys *keys = tls->keys;
	atomic_fetch_add_explicit(&keys->references, 1, memory_order_relaxed);
	(void)pthread_mutex_unlock(&tls->lock);
	return keys;
}

ServeTlsKeys *serve_tls_attach(ServeTls *tls, gnutls_session_t session)
{
	ServeTlsKeys *keys = current(tls);
	if (gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, keys->credentials) < 0)
		return serve_tls_keys_unref(keys);
	/* Asked for, not demanded: a client without one is told so in HTTP, by a sentence instead of an alert. */
	if (keys->wants_client)
		gnutls_certificate_server_set_request(session, GNUTLS_CERT_REQUEST);
	return keys;
}

bool serve_tls_client_known(const ServeTlsKeys *keys, gnutls_session_t session)
{
	if (!keys)
		return false;
	if (!keys->wants_client)
		return true;
	gnutls_typed_vdata_st purpose = { .type = GNUTLS_DT_KEY_PURPOSE_OID,
					  .data = (unsigned char *)(uintptr_t)GNUTLS_KP_TLS_WWW_CLIENT };
	unsigned status;
	return gnutls_certificate_verify_peers(session, &purpose, 1, &status) == 0 && status == 0;
}

char *serve_tls_ca(ServeTls *tls)
{
	ServeTlsKeys *keys = current(tls);
	char *ca = keys->ca ? strdup(keys->ca) : NULL;
	(void)serve_tls_keys_unref(keys);
	return ca;
}

int64_t serve_tls_not_after(ServeTls *tls)
{
	ServeTlsKeys *keys = current(tls);
	int64_t not_after = keys->not_after;
	(void)serve_tls_keys_unref(keys);
	return not_after;
}
