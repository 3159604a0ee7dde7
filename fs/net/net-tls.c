#include "fs/net/net-tls.h"

#include <openssl/x509_vfy.h>
#include <string.h>

#include "fs/net/net-easy.h"

/* Host and port of the URL that failed, which a redirect may have brought. */
static void host_of(CURL *easy, char *ret_host, size_t size)
{
	const char *url = NULL;
	(void)curl_easy_getinfo(easy, CURLINFO_EFFECTIVE_URL, &url);
	const char *start = url ? strstr(url, "://") : NULL;
	start = start ? start + 3 : "the server";
	size_t length = strcspn(start, "/?#");
	if (length >= size)
		length = size - 1;
	memcpy(ret_host, start, length);
	ret_host[length] = '\0';
}

/* The certificate that came is not good enough. */
static int explain_verification(CURL *easy, const char *host, const char *text, Error *error)
{
	long result = 0;
	(void)curl_easy_getinfo(easy, CURLINFO_SSL_VERIFYRESULT, &result);
	switch (result) {
	case X509_V_OK:
	case X509_V_ERR_UNSPECIFIED: /* curl looked at the names before it took the result over */
		return error_set(
			error, -EKEYREJECTED,
			"the certificate of %s is for other names (%s); ask for it by a name it has, or start `imgfs "
			"serve` there with --tls-name",
			host, text);
	case X509_V_ERR_CERT_HAS_EXPIRED:
		return error_set(
			error, -EKEYREJECTED,
			"the certificate of %s has expired; renew it there (`imgfs serve --tls-auto` renews its own "
			"one), or is this machine's clock wrong?",
			host);
	case X509_V_ERR_CERT_NOT_YET_VALID:
		return error_set(
			error, -EKEYREJECTED,
			"the certificate of %s is not valid yet; is the clock of this machine or of that one wrong?",
			host);
	default:
		return error_set(
			error, -EKEYREJECTED,
			"the certificate of %s is not of an authority that this machine trusts (%s); if it is the "
			"right server, run `imgfs trust %s --fingerprint sha256:...` as it says at its start",
			host, text, host);
	}
}

static int explain_handshake(const char *host, const char *text, CURLcode code, Error *error)
{
	/* TLS 1.3 names it; older versions have one alert for everything that does not fit. */
	if (strstr(text, "certificate required") || strstr(text, "bad certificate"))
		return error_set(
			error, -EKEYREJECTED,
			"%s wants a client certificate, and this machine has none that it takes; put client.cert and "
			"client.key into the certs.d/%s directory of imgfs",
			host, host);
	if (code == CURLE_SSL_CONNECT_ERROR && strstr(text, "wrong version number"))
		return error_set(
			error, -EKEYREJECTED,
			"%s does not speak TLS; start `imgfs serve` there with --tls-auto, or give --plain-http if "
			"the network is trusted",
			host);
	return net_curl_error(code);
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wswitch-enum" /* curl has a hundred codes, and new ones come */
int net_tls_error(CURL *easy, CURLcode code, const char *text, Error *error)
{
	char host[300];
	host_of(easy, host, sizeof(host));
	switch (code) {
	case CURLE_PEER_FAILED_VERIFICATION:
		return explain_verification(easy, host, text, error);
	case CURLE_SSL_CACERT_BADFILE:
		return error_set(error, -EKEYREJECTED,
				 "ca.crt of %s is no certificate; run `imgfs trust %s --fingerprint sha256:...` again",
				 host, host);
	case CURLE_SSL_CERTPROBLEM:
		return error_set(
			error, -EKEYREJECTED,
			"client.cert and client.key of %s cannot be used: %s; they must be PEM and belong together",
			host, text);
	case CURLE_GOT_NOTHING:
		return error_set(
			error, -ECONNRESET,
			"%s ended the connection without an answer; if it speaks TLS alone, run `imgfs trust %s "
			"--fingerprint sha256:...` as it says at its start",
			host, host);
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_RECV_ERROR:
	case CURLE_SEND_ERROR:
		return explain_handshake(host, text, code, error);
	default:
		return net_curl_error(code);
	}
}
#pragma GCC diagnostic pop
