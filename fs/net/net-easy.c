#include "fs/net/net-easy.h"

#include <pthread.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "fs/net/net-registry.h"

#define CONNECT_TIMEOUT   5000L
#define BUFFER_SIZE       (512L << 10) /* the most curl takes */
#define KEEPALIVE_SECONDS 30L

int64_t net_now(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static CURLcode global_result;

static void global_init(void)
{
	global_result = curl_global_init(CURL_GLOBAL_DEFAULT);
}

/* curl_global_init() need not be thread-safe, and a room below the mains cannot know who else comes first. */
static int ensure_global(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	(void)pthread_once(&once, global_init);
	return global_result == CURLE_OK ? 0 : -ENOMEM;
}

#define TLS_PREFIX   "https://"
#define PLAIN_PREFIX "http://"

static bool is_tls(const char *url)
{
	return strncasecmp(url, TLS_PREFIX, strlen(TLS_PREFIX)) == 0;
}

static bool is_plain(const char *url)
{
	return strncasecmp(url, PLAIN_PREFIX, strlen(PLAIN_PREFIX)) == 0;
}

/* Of a URL that is one of both. User and password in it make no loopback host of another. */
static bool is_loopback(const char *url)
{
	char host[256];
	const char *authority = url + strlen(is_tls(url) ? TLS_PREFIX : PLAIN_PREFIX);
	size_t length = strcspn(authority, "/?#");
	if (length >= sizeof(host) || memchr(authority, '@', length))
		return false;
	memcpy(host, authority, length);
	host[length] = '\0';
	return net_registry_is_loopback(host);
}

bool net_url_is_private(const char *url)
{
	return is_tls(url) || (is_plain(url) && is_loopback(url));
}

static CURLcode set_blob(CURL *easy, CURLoption option, char *text)
{
	struct curl_blob blob = { .data = text, .len = text ? strlen(text) : 0, .flags = CURL_BLOB_COPY };
	return text ? curl_easy_setopt(easy, option, &blob) : CURLE_OK;
}

/*
 * The blob of authorities stands beside the system's directory of them, which curl searches as well. Certificates come as text, not as
 * files: the process that connects again later may not read those.
 */
static CURLcode set_access(CURL *easy, const NetAccess *access, const char *token, bool private)
{
	CURLcode code = set_blob(easy, CURLOPT_CAINFO_BLOB, access->ca);
	if (code == CURLE_OK)
		code = set_blob(easy, CURLOPT_SSLCERT_BLOB, access->certificate);
	if (code == CURLE_OK)
		code = set_blob(easy, CURLOPT_SSLKEY_BLOB, access->key);
	if (access->unverified) {
		(void)curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
		(void)curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
	} else if (code == CURLE_OK && (token || access->bearer) && private) {
		(void)curl_easy_setopt(easy, CURLOPT_HTTPAUTH, (long)CURLAUTH_BEARER);
		code = curl_easy_setopt(easy, CURLOPT_XOAUTH2_BEARER, token ?: access->bearer);
	} else if (code == CURLE_OK && access->user && private) {
		(void)curl_easy_setopt(easy, CURLOPT_HTTPAUTH, (long)CURLAUTH_BASIC);
		code = curl_easy_setopt(easy, CURLOPT_USERPWD, access->user);
	}
	return code;
}

int net_easy_new(const char *url, const NetAccess *access, const char *token, CURL **ret_easy)
{
	if (!is_tls(url) && !is_plain(url))
		return -EINVAL;
	if (ensure_global() < 0)
		return -ENOMEM;
	CURL *easy = curl_easy_init();
	if (!easy)
		return -ENOMEM;

	CURLcode code = curl_easy_setopt(easy, CURLOPT_URL, url);
	if (code == CURLE_OK)
		code = curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
	if (code == CURLE_OK)
		code = curl_easy_setopt(easy, CURLOPT_USERAGENT, "imgfs");
	if (code == CURLE_OK && is_loopback(url))
		code = curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
	static const NetAccess stranger = { 0 };
	if (code == CURLE_OK)
		code = set_access(easy, access ?: &stranger, token, net_url_is_private(url));
	if (code != CURLE_OK) {
		curl_easy_cleanup(easy);
		return net_curl_error(code);
	}
	/* These take numbers and cannot fail. QUICK_EXIT: ending a transfer does not wait for a resolver that hangs. */
	(void)curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	(void)curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	(void)curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	(void)curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
	(void)curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT);
	(void)curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, BUFFER_SIZE);
	(void)curl_easy_setopt(easy, CURLOPT_TCP_NODELAY, 1L);
	(void)curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	(void)curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, KEEPALIVE_SECONDS);
	(void)curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, KEEPALIVE_SECONDS);
	(void)curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	(void)curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
	*ret_easy = easy;
	return 0;
}

int64_t net_easy_retry_after(CURL *easy)
{
	curl_off_t seconds = 0;
	if (curl_easy_getinfo(easy, CURLINFO_RETRY_AFTER, &seconds) != CURLE_OK || seconds <= 0)
		return 0;
	return seconds > INT32_MAX ? (int64_t)INT32_MAX * 1000 : (int64_t)seconds * 1000;
}

CURLM *net_multi_new(unsigned connections)
{
	if (ensure_global() < 0)
		return NULL;
	CURLM *multi = curl_multi_init();
	if (!multi)
		return NULL;
	(void)curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, (long)connections);
	(void)curl_multi_setopt(multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
	return multi;
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wswitch-enum" /* curl has a hundred codes, and new ones come */
int net_curl_error(CURLcode code)
{
	switch (code) {
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
	case CURLE_COULDNT_CONNECT:
		return -EHOSTUNREACH;
	case CURLE_RECV_ERROR:
	case CURLE_SEND_ERROR:
	case CURLE_GOT_NOTHING:
	case CURLE_PARTIAL_FILE:
		return -ECONNRESET;
	case CURLE_OPERATION_TIMEDOUT:
		return -ETIMEDOUT;
	case CURLE_PEER_FAILED_VERIFICATION:
		return -EKEYREJECTED;
	case CURLE_URL_MALFORMAT:
		return -EINVAL;
	case CURLE_OUT_OF_MEMORY:
		return -ENOMEM;
	default:
		return -EPROTO;
	}
}
#pragma GCC diagnostic pop

void net_progress_mark(NetProgress *progress)
{
	progress->since = net_now();
	progress->bytes = 0;
}

void net_progress_add(NetProgress *progress, uint64_t bytes)
{
	progress->bytes += bytes;
	if (progress->bytes >= NET_PROGRESS_BYTES)
		net_progress_mark(progress);
}
