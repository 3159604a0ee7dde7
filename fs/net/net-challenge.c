#include "fs/net/net-challenge.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

typedef struct Cursor {
	const char *at, *end;
} Cursor;

/* A token of RFC 9110 section 5.6.2; with what base64 has besides, so that a token68 (section 11.2) is passed over as well. */
static bool is_token_char(char c)
{
	return c > ' ' && c < 0x7f && !strchr("\"(),:;<=>?@[\\]{}", c);
}

static void skip(Cursor *cursor, const char *which)
{
	while (cursor->at < cursor->end && *cursor->at && strchr(which, *cursor->at))
		cursor->at++;
}

static bool next_is(const Cursor *cursor, char c)
{
	return cursor->at < cursor->end && *cursor->at == c;
}

static size_t take_token(Cursor *cursor, const char **ret_token)
{
	*ret_token = cursor->at;
	while (cursor->at < cursor->end && is_token_char(*cursor->at))
		cursor->at++;
	return (size_t)(cursor->at - *ret_token);
}

/* A token or a quoted string, into `to` unless that is NULL. */
static int take_value(Cursor *cursor, char *to, size_t size)
{
	bool quoted = next_is(cursor, '"'), closed = !quoted;
	size_t length = 0;
	if (quoted)
		cursor->at++;
	while (cursor->at < cursor->end) {
		char c = *cursor->at;
		if (!quoted && !is_token_char(c))
			break;
		cursor->at++;
		if (quoted && c == '"') {
			closed = true;
			break;
		}
		if (quoted && c == '\\' && cursor->at < cursor->end)
			c = *cursor->at++;
		if ((unsigned char)c < ' ' || c == 0x7f)
			return -EBADMSG;
		if (!to)
			continue;
		if (length + 1 >= size)
			return -EBADMSG;
		to[length++] = c;
	}
	if (to)
		to[length] = '\0';
	return closed ? 0 : -EBADMSG;
}

static bool name_is(const char *token, size_t length, const char *name)
{
	return length == strlen(name) && strncasecmp(token, name, length) == 0;
}

/* The "=" behind a parameter's name, and its value. */
static int take_parameter(Cursor *cursor, const char *name, size_t length, NetChallenge *challenge)
{
	cursor->at++;
	skip(cursor, " \t");
	if (cursor->at == cursor->end || *cursor->at == '=' || *cursor->at == ',') {
		skip(cursor, "="); /* the padding of a token68 */
		return 0;
	}
	if (challenge && name_is(name, length, "realm"))
		return take_value(cursor, challenge->realm, sizeof(challenge->realm));
	if (challenge && name_is(name, length, "service"))
		return take_value(cursor, challenge->service, sizeof(challenge->service));
	if (challenge && name_is(name, length, "scope"))
		return take_value(cursor, challenge->scope, sizeof(challenge->scope));
	return take_value(cursor, NULL, 0);
}

int net_challenge_parse(const char *value, size_t size, NetChallenge *ret_challenge)
{
	Cursor cursor = { .at = value, .end = value + size };
	NetChallenge challenge = { 0 };
	bool bearer = false, after_scheme = false;
	for (;;) {
		skip(&cursor, " \t,");
		if (cursor.at == cursor.end)
			break;
		const char *token;
		size_t length = take_token(&cursor, &token);
		if (length == 0)
			return -EBADMSG;
		skip(&cursor, " \t");
		if (next_is(&cursor, '=')) {
			int r = take_parameter(&cursor, token, length, bearer ? &challenge : NULL);
			if (r < 0)
				return r;
			after_scheme = false;
		} else if (after_scheme && (cursor.at == cursor.end || *cursor.at == ',')) {
			after_scheme = false; /* a token68 without padding */
		} else if (bearer) {
			break;
		} else {
			bearer = name_is(token, length, "Bearer");
			after_scheme = true;
		}
	}
	if (!challenge.realm[0])
		return -ENOENT;
	*ret_challenge = challenge;
	return 0;
}
