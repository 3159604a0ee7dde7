#include "fs/net/net-probe.h"

#include <string.h>
#include <strings.h>

#include "fs/net/net-easy.h"
#include "fs/net/net-tls.h"

static size_t on_header(char *line, size_t unit, size_t count, void *arg)
{
	int64_t *date = arg;
	size_t size = unit * count;
	char text[64];
	if (size < sizeof(text) && size > 5 && strncasecmp(line, "date:", 5) == 0) {
		memcpy(text, line + 5, size - 5);
		text[size - 5] = '\0';
		time_t parsed = curl_getdate(text, NULL);
		if (parsed > 0)
			*date = parsed;
	}
	return size;
}

/* Of the server's own certificate, the first of the chain. */
static int64_t read_not_after(CURL *easy)
{
	struct curl_certinfo *chain = NULL;
	if (curl_easy_getinfo(easy, CURLINFO_CERTINFO, &chain) != CURLE_OK || !chain || chain->num_of_certs < 1)
		return 0;
	for (const struct curl_slist *line = chain->certinfo[0]; line; line = line->next) {
		if (strncmp(line->data, "Expire date:", 12) != 0)
			continue;
		time_t parsed = curl_getdate(line->data + 12, NULL);
		return parsed > 0 ? parsed : 0;
	}
	return 0;
}

int net_probe(const char *url, const NetAccess *access, int64_t timeout, NetProbe *ret_probe, Error *error)
{
	NetProbe probe = { 0 };
	char curl_text[CURL_ERROR_SIZE] = "";
	CURL *easy;
	int r = net_easy_new(url, access, NULL, &easy);
	if (r < 0)
		return error_set(error, r, "%s: %s", url, error_text(NULL, r));
	(void)curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
	(void)curl_easy_setopt(easy, CURLOPT_CERTINFO, 1L);
	(void)curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)timeout);
	(void)curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, curl_text);
	(void)curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
	(void)curl_easy_setopt(easy, CURLOPT_HEADERDATA, &probe.date);
	int64_t began = net_now();
	CURLcode code = curl_easy_perform(easy);
	probe.took = net_now() - began;
	if (code == CURLE_OK) {
		(void)curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &probe.status);
		probe.not_after = read_not_after(easy);
		*ret_probe = probe;
	} else {
		Error own = { 0 };
		r = net_tls_error(easy, code, curl_text, &own);
		if (!own.message[0])
			(void)error_set(&own, r, "%s", curl_text[0] ? curl_text : error_text(NULL, r));
		r = error_set(error, r, "%s: %s", url, own.message);
	}
	curl_easy_cleanup(easy);
	return r;
}
