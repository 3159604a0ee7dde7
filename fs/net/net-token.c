#include "fs/net/net-token.h"

#include <jansson.h>
#include <openssl/crypto.h>
#include <string.h>
#include <strings.h>

#include "fs/net/net-easy.h"
#include "fs/net/net-headers.h"
#include "fs/net/net-secret.h"
#include "fs/net/net-tls.h"

#define ANSWER_MAX      (256u << 10)
#define TOKEN_MAX       (64u << 10)
#define SECONDS_DEFAULT 60 /* where the answer does not say */
#define SECONDS_MAX     (24 * 3600)
#define TLS_PREFIX      "https://"

struct NetTokens {
	CURLM *multi;
	void *owner;
	const NetAccess *access; /* not owned */
	char *refresh;           /* came with a token; NULL: that of `access` */

	char *token; /* NULL: none yet */
	uint64_t serial;
	int64_t renew_at, expires_at;
	NetChallenge challenge;
	bool anonymous; /* neither password nor identity token may be sent: whoever is on the way could have named the realm */

	CURL *easy; /* the request under way, or NULL */
	NetProgress progress;
	char *answer; /* ANSWER_MAX bytes */
	size_t size;
	char curl_text[CURL_ERROR_SIZE];
};

void net_token_done(NetToken *token)
{
	net_secret_wipe(&token->text);
	net_secret_wipe(&token->refresh);
	*token = (NetToken){ 0 };
}

/* A token as a header can carry it (RFC 6750 section 2.1 is narrower), copied; NULL: it is not such, or out of memory. */
static char *copy_token(const char *text)
{
	if (!text || !text[0] || strlen(text) > TOKEN_MAX)
		return NULL;
	for (const char *at = text; *at; at++)
		if (*at <= ' ' || *at >= 0x7f)
			return NULL;
	return strdup(text);
}

int net_token_parse(const char *json, size_t size, NetToken *ret_token)
{
	json_t *root = json_loadb(json, size, 0, NULL);
	const char *text = json_string_value(json_object_get(root, "token"));
	if (!text || !text[0])
		text = json_string_value(json_object_get(root, "access_token"));
	const char *refresh = json_string_value(json_object_get(root, "refresh_token"));
	double seconds = json_number_value(json_object_get(root, "expires_in"));
	NetToken token = {
		.text = copy_token(text),
		.refresh = copy_token(refresh),
		.seconds = seconds >= 1 && seconds <= SECONDS_MAX ? (int64_t)seconds
			   : seconds > SECONDS_MAX                ? SECONDS_MAX
								  : SECONDS_DEFAULT,
	};
	json_decref(root);
	if (!token.text) {
		net_token_done(&token);
		return -EBADMSG;
	}
	*ret_token = token;
	return 0;
}

int net_tokens_new(CURLM *multi, void *owner, int64_t timeout, NetTokens **ret_tokens)
{
	NetTokens *tokens = calloc(1, sizeof(*tokens));
	if (!tokens)
		return -ENOMEM;
	tokens->multi = multi;
	tokens->owner = owner;
	tokens->progress.limit = timeout;
	*ret_tokens = tokens;
	return 0;
}

static void stop(NetTokens *tokens)
{
	if (tokens->easy) {
		(void)curl_multi_remove_handle(tokens->multi, tokens->easy);
		curl_easy_cleanup(tokens->easy);
	}
	tokens->easy = NULL;
	if (tokens->answer)
		OPENSSL_cleanse(tokens->answer, ANSWER_MAX);
	free(tokens->answer);
	tokens->answer = NULL;
	tokens->size = 0;
}

NetTokens *net_tokens_free(NetTokens *tokens)
{
	if (!tokens)
		return NULL;
	stop(tokens);
	net_secret_wipe(&tokens->token);
	net_secret_wipe(&tokens->refresh);
	free(tokens);
	return NULL;
}

void net_tokens_set_access(NetTokens *tokens, const NetAccess *access)
{
	tokens->access = access;
	net_secret_wipe(&tokens->token);
	net_secret_wipe(&tokens->refresh);
}

const char *net_tokens_get(NetTokens *tokens, uint64_t *ret_serial)
{
	int64_t now = net_now();
	*ret_serial = tokens->serial;
	if (!tokens->token)
		return NULL;
	/* If that fails, whoever is refused for want of a token asks again, and hears why. */
	if (now >= tokens->renew_at && net_tokens_ask(tokens, NULL, NULL, NULL) < 0)
		tokens->renew_at = tokens->expires_at;
	return now < tokens->expires_at ? tokens->token : NULL;
}

static size_t on_answer(char *data, size_t unit, size_t count, void *arg)
{
	NetTokens *tokens = arg;
	size_t size = unit * count;
	if (size > ANSWER_MAX - tokens->size)
		return 0;
	memcpy(tokens->answer + tokens->size, data, size);
	tokens->size += size;
	net_progress_add(&tokens->progress, size);
	return size;
}

static bool is_tls(const char *url)
{
	return strncasecmp(url, TLS_PREFIX, strlen(TLS_PREFIX)) == 0;
}

/* Appends "NAME=VALUE", the value escaped, behind `separator`. */
static int put_field(FILE *file, CURL *easy, char separator, const char *name, const char *value, size_t length)
{
	if (length == 0)
		return 0;
	char *escaped = curl_easy_escape(easy, value, (int)length);
	if (!escaped)
		return -ENOMEM;
	if (separator)
		(void)fputc(separator, file);
	(void)fprintf(file, "%s=%s", name, escaped);
	OPENSSL_cleanse(escaped, strlen(escaped));
	curl_free(escaped);
	return 0;
}

/* The fields of both forms of the request. The query has a scope field for each, the form one for all. */
static int put_fields(FILE *file, CURL *easy, const NetChallenge *challenge, char separator, bool split)
{
	int r = put_field(file, easy, separator, "service", challenge->service, strlen(challenge->service));
	if (challenge->service[0])
		separator = '&';
	for (const char *scope = challenge->scope; r == 0 && *scope;) {
		size_t length = split ? strcspn(scope, " ") : strlen(scope);
		r = put_field(file, easy, separator, "scope", scope, length);
		if (length > 0)
			separator = '&';
		scope += length;
		scope += strspn(scope, " ");
	}
	return r;
}

static int make_query(CURL *easy, const NetChallenge *challenge, char **ret_url)
{
	size_t size;
	FILE *file = open_memstream(ret_url, &size);
	if (!file)
		return -ENOMEM;
	(void)fputs(challenge->realm, file);
	int r = put_fields(file, easy, challenge, strchr(challenge->realm, '?') ? '&' : '?', true);
	if (fclose(file) != 0 && r == 0)
		r = -ENOMEM;
	return r;
}

static int make_form(CURL *easy, const NetChallenge *challenge, const char *refresh, char **ret_form)
{
	size_t size;
	FILE *file = open_memstream(ret_form, &size);
	if (!file)
		return -ENOMEM;
	(void)fputs("grant_type=refresh_token&client_id=imgfs", file);
	int r = put_fields(file, easy, challenge, '&', false);
	if (r == 0)
		r = put_field(file, easy, '&', "refresh_token", refresh, strlen(refresh));
	if (fclose(file) != 0 && r == 0)
		r = -ENOMEM;
	return r;
}

static const char *refresh_token(const NetTokens *tokens)
{
	return tokens->refresh ?: tokens->access ? tokens->access->identity : NULL;
}

/* Sets what is asked: by POST with an identity token, by GET with a password or as nobody. */
static int set_request(NetTokens *tokens)
{
	CURL *easy = tokens->easy;
	_cleanup_free_ char *text = NULL;
	const char *refresh = refresh_token(tokens);
	CURLcode code;
	if (refresh && !tokens->anonymous) {
		int r = make_form(easy, &tokens->challenge, refresh, &text);
		if (r < 0)
			return r;
		code = curl_easy_setopt(easy, CURLOPT_COPYPOSTFIELDS, text);
		OPENSSL_cleanse(text, strlen(text));
	} else {
		int r = make_query(easy, &tokens->challenge, &text);
		if (r < 0)
			return r;
		code = curl_easy_setopt(easy, CURLOPT_URL, text);
	}
	return code == CURLE_OK ? 0 : -ENOMEM;
}

/* The client certificate is for the registry alone. */
static int start(NetTokens *tokens, Error *error)
{
	const char *realm = tokens->challenge.realm;
	const NetAccess *access = tokens->access;
	NetAccess own = { 0 };
	if (access)
		own = (NetAccess){
			.ca = access->ca,
			.unverified = access->unverified,
			.user = tokens->anonymous ? NULL : access->user,
		};
	int r = net_easy_new(realm, &own, NULL, &tokens->easy);
	if (r < 0)
		return error_set(error, r, "the registry wants a token of \"%s\", which is no URL", realm);
	tokens->answer = calloc(1, ANSWER_MAX);
	r = tokens->answer ? set_request(tokens) : -ENOMEM;
	if (r == 0) {
		tokens->curl_text[0] = '\0';
		(void)curl_easy_setopt(tokens->easy, CURLOPT_ERRORBUFFER, tokens->curl_text);
		(void)curl_easy_setopt(tokens->easy, CURLOPT_PRIVATE, tokens->owner);
		(void)curl_easy_setopt(tokens->easy, CURLOPT_WRITEFUNCTION, on_answer);
		(void)curl_easy_setopt(tokens->easy, CURLOPT_WRITEDATA, tokens);
		net_progress_mark(&tokens->progress);
		if (curl_multi_add_handle(tokens->multi, tokens->easy) != CURLM_OK)
			r = -ENOMEM;
	}
	if (r < 0) {
		stop(tokens);
		return error_set(error, r, "out of memory");
	}
	return 0;
}

int net_tokens_ask(NetTokens *tokens, const char *url, const NetChallenge *challenge, Error *error)
{
	if (tokens->easy)
		return 0;
	if (challenge) {
		if (is_tls(url) && !is_tls(challenge->realm))
			return error_set(error, -EACCES,
					 "the registry speaks TLS, but wants a token of %s, which does not; its "
					 "configuration has to name an https realm",
					 challenge->realm);
		tokens->challenge = *challenge;
		tokens->anonymous = !net_url_is_private(url) || !net_url_is_private(challenge->realm);
	}
	return start(tokens, error);
}

static int judge(NetTokens *tokens, CURLcode code, NetToken *ret_token, Error *error)
{
	long status = 0;
	(void)curl_easy_getinfo(tokens->easy, CURLINFO_RESPONSE_CODE, &status);
	if (code == CURLE_WRITE_ERROR)
		return error_set(error, -EBADMSG, "the answer is longer than %u bytes", ANSWER_MAX);
	if (code != CURLE_OK) {
		int r = net_tls_error(tokens->easy, code, tokens->curl_text, error);
		return !error->message[0] ? error_set(error, r, "%s",
						      tokens->curl_text[0] ? tokens->curl_text : error_text(NULL, r))
					  : r;
	}
	if (status == 400 || status == 401)
		return error_set(
			error, -EACCES,
			"user and password are not known there, or not enough (status %ld); `docker login` to the "
			"registry, or give --user or --login",
			status);
	if (status != 200)
		return net_status_error((unsigned)status, error);
	int r = net_token_parse(tokens->answer, tokens->size, ret_token);
	return r < 0 ? error_set(error, r, "the answer holds no token") : 0;
}

/* Is this an answer that says no, rather than none? */
static bool is_refusal(int code)
{
	return code == -EACCES || code == -ENOENT || code == -EPROTO || code == -EBADMSG;
}

int net_tokens_complete(NetTokens *tokens, CURLcode code, Error *error)
{
	NetToken token = { 0 };
	Error why = { 0 };
	int r = judge(tokens, code, &token, &why);
	stop(tokens);
	if (is_refusal(r) && tokens->refresh) {
		/* It may have expired, or never have been taken there: the login itself is what counts. */
		net_secret_wipe(&tokens->refresh);
		net_secret_wipe(&tokens->token);
		return 0;
	}
	if (r < 0) {
		tokens->renew_at = tokens->expires_at;
		return error_set(error, r, "no token of %s: %s", tokens->challenge.realm, error_text(&why, r));
	}
	int64_t now = net_now();
	net_secret_wipe(&tokens->token);
	tokens->token = TAKE_PTR(token.text);
	tokens->serial++;
	tokens->renew_at = now + token.seconds * 800;
	tokens->expires_at = now + token.seconds * 1000;
	if (token.refresh) {
		net_secret_wipe(&tokens->refresh);
		tokens->refresh = TAKE_PTR(token.refresh);
	}
	return 0;
}

int64_t net_tokens_deadline(const NetTokens *tokens)
{
	return tokens->easy ? net_progress_deadline(&tokens->progress) : INT64_MAX;
}

int net_tokens_expire(NetTokens *tokens, Error *error)
{
	stop(tokens);
	tokens->renew_at = tokens->expires_at;
	return error_set(error, -ETIMEDOUT, "no token of %s: it sends nothing", tokens->challenge.realm);
}
