/* X.509 certificates: made, read and looked at, with OpenSSL's libcrypto. Blocks on nothing but entropy. */
#pragma once

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/base/digest.h"
#include "fs/base/error.h"

static inline void x509_free_p(X509 **certificate)
{
	X509_free(*certificate);
}

static inline void evp_pkey_free_p(EVP_PKEY **key)
{
	EVP_PKEY_free(*key);
}

/* A new key on the curve P-256. Errors: -EIO. */
int certificate_key_new(EVP_PKEY **ret_key) _must_check_;

typedef struct CertificatePlan {
	const char *subject;      /* common name */
	const char *const *names; /* host names and addresses in numbers; none in an authority */
	size_t name_count;
	bool authority;      /* it may sign others */
	bool client;         /* for a client, not for a server */
	int64_t valid_from;  /* seconds from now, may be negative */
	int64_t valid_until; /* seconds from now */
} CertificatePlan;

/* A certificate over `key`, signed by `issuer` with `issuer_key`; issuer NULL: by itself. Errors: -EIO, -EINVAL (a name). */
int certificate_new(const CertificatePlan *plan, EVP_PKEY *key, X509 *issuer, EVP_PKEY *issuer_key,
		    X509 **ret_certificate) _must_check_;

/* Text forms, malloc'ed, the caller's, with a final NUL that `ret_size` does not count. Errors: -ENOMEM. */
int certificate_encode(X509 *certificate, char **ret_pem, size_t *ret_size) _must_check_;
int certificate_key_encode(EVP_PKEY *key, char **ret_pem, size_t *ret_size) _must_check_;

/* Exactly one certificate, and nothing else of substance; a key without a password. Errors: -EBADMSG. */
int certificate_decode(const char *pem, size_t size, X509 **ret_certificate) _must_check_;
int certificate_key_decode(const char *pem, size_t size, EVP_PKEY **ret_key) _must_check_;

/* SHA-256 of the certificate's DER form, which is what `openssl x509 -fingerprint -sha256` shows. Errors: -ENOMEM. */
int certificate_fingerprint(X509 *certificate, Digest *ret_fingerprint) _must_check_;

/* Is it one that may sign others (CA:TRUE)? */
bool certificate_is_authority(X509 *certificate);

/* Does it name this host or address? */
bool certificate_has_name(X509 *certificate, const char *name);

/* Seconds until its end; negative when that is past. */
int64_t certificate_time_left(X509 *certificate);
