#include "tools/serve/authority.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "fs/base/fd.h"
#include "tools/serve/certificate.h"

#define CA_KEY_FILE "ca.key"
#define FILE_MAX    65536u

#define DAY          (INT64_C(24) * 3600)
#define CA_SECONDS   (30 * 365 * DAY)
#define CERT_SECONDS (90 * DAY)
#define RENEW_BEFORE (30 * DAY)
#define CLOCK_SKEW   DAY /* nodes whose clock is behind take a new certificate all the same */

/* The directory being worked in. */
typedef struct Authority {
	const char *path; /* for sentences */
	int fd;
	EVP_PKEY *ca_key;
	X509 *ca;
	EVP_PKEY *key;
	X509 *certificate;
} Authority;

static void authority_done(Authority *authority)
{
	EVP_PKEY_free(authority->ca_key);
	X509_free(authority->ca);
	EVP_PKEY_free(authority->key);
	X509_free(authority->certificate);
	close_p(&authority->fd); /* and with it the lock */
}

static int fault(const Authority *authority, const char *name, int code, Error *error)
{
	return error_set(error, code, "%s/%s cannot be used: %s; name another directory with --tls-dir",
			 authority->path, name, error_text(NULL, code));
}

static int damaged(const Authority *authority, const char *name, Error *error)
{
	return error_set(
		error, -EBADMSG,
		"%s/%s is damaged or does not belong to the other files; put the files of a backup there, or remove "
		"them all and run `imgfs trust` on every node again",
		authority->path, name);
}

static int open_directory(Authority *authority, Error *error)
{
	if (mkdir(authority->path, 0700) < 0 && errno != EEXIST)
		return error_set(error, -errno, "%s cannot be made: %s; name another directory with --tls-dir",
				 authority->path, error_text(NULL, errno));
	authority->fd = open(authority->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (authority->fd < 0 || flock(authority->fd, LOCK_EX) < 0)
		return error_set(error, -errno, "%s cannot be used: %s; name another directory with --tls-dir",
				 authority->path, error_text(NULL, errno));
	return 0;
}

/* A file's text; NULL when it is not there. */
static int read_text(const Authority *authority, const char *name, char **ret_text, size_t *ret_size, Error *error)
{
	int r = fd_read_file(authority->fd, name, FILE_MAX, ret_text, ret_size);
	if (r == -ENOENT)
		*ret_text = NULL;
	return r < 0 && r != -ENOENT ? fault(authority, name, r, error) : 0;
}

static int load_key(const Authority *authority, const char *name, EVP_PKEY **ret_key, Error *error)
{
	char *text;
	size_t size;
	int r = read_text(authority, name, &text, &size, error);
	if (r < 0 || !text)
		return r;
	r = certificate_key_decode(text, size, ret_key);
	OPENSSL_cleanse(text, size);
	free(text);
	return r < 0 ? damaged(authority, name, error) : 0;
}

static int load_certificate(const Authority *authority, const char *name, X509 **ret_certificate, Error *error)
{
	_cleanup_free_ char *text = NULL;
	size_t size;
	int r = read_text(authority, name, &text, &size, error);
	if (r < 0 || !text)
		return r;
	return certificate_decode(text, size, ret_certificate) < 0 ? damaged(authority, name, error) : 0;
}

static int save_certificate(const Authority *authority, const char *name, X509 *certificate, Error *error)
{
	_cleanup_free_ char *text = NULL;
	size_t size;
	int r = certificate_encode(certificate, &text, &size);
	if (r == 0)
		r = fd_replace_file(authority->fd, name, text, size, 0644);
	return r < 0 ? fault(authority, name, r, error) : 0;
}

/* A new key, saved before anything is signed for it. */
static int make_key(const Authority *authority, const char *name, EVP_PKEY **ret_key, Error *error)
{
	_cleanup_(evp_pkey_free_p) EVP_PKEY *key = NULL;
	char *text = NULL;
	size_t size = 0;
	int r = certificate_key_new(&key);
	if (r == 0)
		r = certificate_key_encode(key, &text, &size);
	if (r == 0)
		r = fd_replace_file(authority->fd, name, text, size, 0600);
	if (text)
		OPENSSL_cleanse(text, size);
	free(text);
	if (r < 0)
		return fault(authority, name, r, error);
	*ret_key = TAKE_PTR(key);
	return 0;
}

static int make_ca(Authority *authority, Error *error)
{
	unsigned char chance[4];
	char subject[64];
	int r = authority->ca_key ? 0 : make_key(authority, CA_KEY_FILE, &authority->ca_key, error);
	if (r < 0)
		return r;
	if (RAND_bytes(chance, sizeof(chance)) != 1)
		return error_set(error, -EIO, "no random numbers to make an authority with");
	/* A name of its own: who trusts the authorities of several build hosts must be able to tell them apart. */
	(void)snprintf(subject, sizeof(subject), "imgfs authority %02x%02x%02x%02x", chance[0], chance[1], chance[2],
		       chance[3]);
	CertificatePlan plan = {
		.subject = subject, .authority = true, .valid_from = -CLOCK_SKEW, .valid_until = CA_SECONDS
	};
	r = certificate_new(&plan, authority->ca_key, NULL, NULL, &authority->ca);
	if (r < 0)
		return error_set(error, r, "making a certificate authority failed");
	return save_certificate(authority, AUTHORITY_CA_FILE, authority->ca, error);
}

static int ensure_ca(Authority *authority, Error *error)
{
	int r = load_key(authority, CA_KEY_FILE, &authority->ca_key, error);
	if (r == 0)
		r = load_certificate(authority, AUTHORITY_CA_FILE, &authority->ca, error);
	if (r < 0)
		return r;
	if (authority->ca && !authority->ca_key)
		return damaged(authority, CA_KEY_FILE, error);
	if (!authority->ca) /* a key alone is what a start that was cut short leaves */
		return make_ca(authority, error);
	if (X509_check_private_key(authority->ca, authority->ca_key) != 1)
		return damaged(authority, AUTHORITY_CA_FILE, error);
	if (certificate_time_left(authority->ca) < CERT_SECONDS)
		return error_set(
			error, -EBADMSG,
			"the authority in %s ends soon or has ended; remove its files and run `imgfs trust` on every "
			"node again",
			authority->path);
	return 0;
}

/* Will the server's certificate do for a while? */
static bool is_good(const Authority *authority, const char *const *names, size_t count)
{
	X509 *certificate = authority->certificate;
	if (!certificate || X509_check_private_key(certificate, authority->key) != 1 ||
	    X509_check_issued(authority->ca, certificate) != X509_V_OK ||
	    X509_cmp_current_time(X509_get0_notBefore(certificate)) >= 0 ||
	    X509_verify(certificate, authority->ca_key) != 1 || certificate_time_left(certificate) < RENEW_BEFORE)
		return false;
	for (size_t i = 0; i < count; i++)
		if (!certificate_has_name(certificate, names[i]))
			return false;
	return true;
}

static int ensure_certificate(Authority *authority, const char *const *names, size_t count, Error *error)
{
	int r = load_key(authority, AUTHORITY_KEY_FILE, &authority->key, error);
	if (r == 0)
		r = load_certificate(authority, AUTHORITY_CERTIFICATE_FILE, &authority->certificate, error);
	if (r == 0 && !authority->key)
		r = make_key(authority, AUTHORITY_KEY_FILE, &authority->key, error);
	if (r < 0 || is_good(authority, names, count))
		return r;
	CertificatePlan plan = {
		.subject = "imgfs serve",
		.names = names,
		.name_count = count,
		.valid_from = -CLOCK_SKEW,
		.valid_until = CERT_SECONDS,
	};
	_cleanup_(x509_free_p) X509 *certificate = NULL;
	r = certificate_new(&plan, authority->key, authority->ca, authority->ca_key, &certificate);
	if (r == -EINVAL)
		return error_set(error, r,
				 "one of the names for the certificate is neither a host name nor an address");
	if (r < 0)
		return error_set(error, r, "making a certificate failed");
	r = save_certificate(authority, AUTHORITY_CERTIFICATE_FILE, certificate, error);
	return r < 0 ? r : 1;
}

int authority_ensure(const char *directory, const char *const *names, size_t count, Digest *ret_fingerprint,
		     Error *error)
{
	_cleanup_(authority_done) Authority authority = { .path = directory, .fd = -1 };
	int r = open_directory(&authority, error);
	if (r == 0)
		r = ensure_ca(&authority, error);
	if (r < 0)
		return r;
	r = ensure_certificate(&authority, names, count, error);
	if (r < 0)
		return r;
	if (certificate_fingerprint(authority.ca, ret_fingerprint) < 0)
		return error_set(error, -ENOMEM, "out of memory");
	return r;
}
