#include "tools/serve/certificate.h"

#include <arpa/inet.h>
#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <string.h>

#define DAY (24 * 3600)

static void bio_free_p(BIO **bio)
{
	BIO_free_all(*bio);
}

static bool is_address(const char *name)
{
	struct in6_addr address;
	return inet_pton(AF_INET, name, &address) == 1 || inet_pton(AF_INET6, name, &address) == 1;
}

int certificate_key_new(EVP_PKEY **ret_key)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	if (!key)
		return -EIO;
	*ret_key = key;
	return 0;
}

static int add_extension(X509 *certificate, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX context;
	X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
	X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
	int added = extension ? X509_add_ext(certificate, extension, -1) : 0;
	X509_EXTENSION_free(extension);
	return added ? 0 : -EIO;
}

/* Names go in one by one: no text of a name is ever read as more than a name. */
static int add_name(GENERAL_NAMES *list, const char *text)
{
	bool address = is_address(text);
	ASN1_STRING *value = address ? a2i_IPADDRESS(text) : ASN1_IA5STRING_new();
	GENERAL_NAME *name = GENERAL_NAME_new();
	if (!value || !name || (!address && !ASN1_STRING_set(value, text, (int)strlen(text)))) {
		ASN1_STRING_free(value);
		GENERAL_NAME_free(name);
		return -EIO;
	}
	GENERAL_NAME_set0_value(name, address ? GEN_IPADD : GEN_DNS, value);
	if (!sk_GENERAL_NAME_push(list, name)) {
		GENERAL_NAME_free(name);
		return -EIO;
	}
	return 0;
}

static int add_names(X509 *certificate, const CertificatePlan *plan)
{
	GENERAL_NAMES *list = sk_GENERAL_NAME_new_null();
	int r = list ? 0 : -EIO;
	for (size_t i = 0; r == 0 && i < plan->name_count; i++) {
		const char *name = plan->names[i];
		bool host = name[0] && name[strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
							 "0123456789.-_*")] == '\0';
		r = host || is_address(name) ? add_name(list, name) : -EINVAL;
	}
	if (r == 0 && plan->name_count > 0 &&
	    X509_add1_ext_i2d(certificate, NID_subject_alt_name, list, 0, X509V3_ADD_DEFAULT) != 1)
		r = -EIO;
	GENERAL_NAMES_free(list);
	return r;
}

static int add_extensions(X509 *certificate, X509 *issuer, const CertificatePlan *plan)
{
	const char *usage = plan->authority ? "critical,keyCertSign,cRLSign" : "critical,digitalSignature";
	int r = add_extension(certificate, issuer, NID_basic_constraints,
			      plan->authority ? "critical,CA:TRUE,pathlen:0" : "critical,CA:FALSE");
	if (r == 0)
		r = add_extension(certificate, issuer, NID_key_usage, usage);
	if (r == 0 && !plan->authority)
		r = add_extension(certificate, issuer, NID_ext_key_usage, plan->client ? "clientAuth" : "serverAuth");
	if (r == 0)
		r = add_extension(certificate, issuer, NID_subject_key_identifier, "hash");
	if (r == 0)
		r = add_extension(certificate, issuer, NID_authority_key_identifier, "keyid:always");
	return r < 0 ? r : add_names(certificate, plan);
}

static int set_serial(X509 *certificate)
{
	unsigned char bytes[16];
	if (RAND_bytes(bytes, sizeof(bytes)) != 1)
		return -EIO;
	bytes[0] = (bytes[0] & 0x7f) | 0x40; /* positive, and of one length */
	BIGNUM *number = BN_bin2bn(bytes, sizeof(bytes), NULL);
	bool set = number && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate));
	BN_free(number);
	return set ? 0 : -EIO;
}

static bool set_time(ASN1_TIME *time, int64_t seconds)
{
	return X509_time_adj_ex(time, (int)(seconds / DAY), (long)(seconds % DAY), NULL) != NULL;
}

int certificate_new(const CertificatePlan *plan, EVP_PKEY *key, X509 *issuer, EVP_PKEY *issuer_key,
		    X509 **ret_certificate)
{
	_cleanup_(x509_free_p) X509 *certificate = X509_new();
	if (!certificate || set_serial(certificate) < 0)
		return -EIO;
	X509_NAME *subject = X509_get_subject_name(certificate);
	if (!X509_set_version(certificate, X509_VERSION_3) || !X509_set_pubkey(certificate, key) ||
	    !set_time(X509_getm_notBefore(certificate), plan->valid_from) ||
	    !set_time(X509_getm_notAfter(certificate), plan->valid_until) ||
	    !X509_NAME_add_entry_by_NID(subject, NID_commonName, MBSTRING_UTF8, (const unsigned char *)plan->subject,
					-1, -1, 0) ||
	    !X509_set_issuer_name(certificate, issuer ? X509_get_subject_name(issuer) : subject))
		return -EIO;
	int r = add_extensions(certificate, issuer ?: certificate, plan);
	if (r < 0)
		return r;
	if (X509_sign(certificate, issuer ? issuer_key : key, EVP_sha256()) == 0)
		return -EIO;
	*ret_certificate = TAKE_PTR(certificate);
	return 0;
}

/* Copies what was written to a memory BIO. */
static int take_text(BIO *bio, char **ret_text, size_t *ret_size)
{
	char *data;
	long size = BIO_get_mem_data(bio, &data);
	char *text = size > 0 ? strndup(data, (size_t)size) : NULL;
	if (!text)
		return -ENOMEM;
	*ret_text = text;
	*ret_size = strlen(text);
	return 0;
}

int certificate_encode(X509 *certificate, char **ret_pem, size_t *ret_size)
{
	_cleanup_(bio_free_p) BIO *bio = BIO_new(BIO_s_mem());
	if (!bio || !PEM_write_bio_X509(bio, certificate))
		return -ENOMEM;
	return take_text(bio, ret_pem, ret_size);
}

int certificate_key_encode(EVP_PKEY *key, char **ret_pem, size_t *ret_size)
{
	_cleanup_(bio_free_p) BIO *bio = BIO_new(BIO_s_secmem());
	if (!bio || !PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL))
		return -ENOMEM;
	return take_text(bio, ret_pem, ret_size);
}

/* There is nobody to ask for a password. */
static int no_password(char *buffer _unused_, int size _unused_, int writing _unused_, void *arg _unused_)
{
	return -1;
}

int certificate_decode(const char *pem, size_t size, X509 **ret_certificate)
{
	if (size > INT32_MAX)
		return -EBADMSG;
	_cleanup_(bio_free_p) BIO *bio = BIO_new_mem_buf(pem, (int)size);
	if (!bio)
		return -ENOMEM;
	_cleanup_(x509_free_p) X509 *certificate = PEM_read_bio_X509(bio, NULL, no_password, NULL);
	_cleanup_(x509_free_p) X509 *second = certificate ? PEM_read_bio_X509(bio, NULL, no_password, NULL) : NULL;
	if (!certificate || second)
		return -EBADMSG;
	*ret_certificate = TAKE_PTR(certificate);
	return 0;
}

int certificate_key_decode(const char *pem, size_t size, EVP_PKEY **ret_key)
{
	if (size > INT32_MAX)
		return -EBADMSG;
	_cleanup_(bio_free_p) BIO *bio = BIO_new_mem_buf(pem, (int)size);
	if (!bio)
		return -ENOMEM;
	EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL);
	if (!key)
		return -EBADMSG;
	*ret_key = key;
	return 0;
}

int certificate_fingerprint(X509 *certificate, Digest *ret_fingerprint)
{
	unsigned char *der = NULL;
	int size = i2d_X509(certificate, &der);
	int r = size > 0 ? digest_of(der, (size_t)size, ret_fingerprint) : -ENOMEM;
	OPENSSL_free(der);
	return r;
}

bool certificate_is_authority(X509 *certificate)
{
	return X509_check_ca(certificate) == 1;
}

bool certificate_has_name(X509 *certificate, const char *name)
{
	if (is_address(name))
		return X509_check_ip_asc(certificate, name, 0) == 1;
	return X509_check_host(certificate, name, 0, 0, NULL) == 1;
}

int64_t certificate_time_left(X509 *certificate)
{
	int days, seconds;
	if (!ASN1_TIME_diff(&days, &seconds, NULL, X509_get0_notAfter(certificate)))
		return -1;
	return (int64_t)days * DAY + seconds;
}
