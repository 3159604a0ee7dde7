#include "tools/serve/htpasswd.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define HASH_MAX        255u
#define BCRYPT_LENGTH   60u
#define BCRYPT_COST_MIN 4
#define BCRYPT_COST_MAX 16 /* some seconds a try; above it a login never ends */

static bool is_of(const char *text, const char *more)
{
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789./";
	while (*text && (strchr(alphabet, *text) || strchr(more, *text)))
		text++;
	return *text == '\0';
}

/* $2y$COST$ and 53 characters. */
static bool is_bcrypt(const char *hash)
{
	if (strlen(hash) != BCRYPT_LENGTH || hash[0] != '$' || hash[1] != '2' || !hash[2] || !strchr("aby", hash[2]) ||
	    hash[3] != '$' || hash[6] != '$' || !is_of(hash + 7, ""))
		return false;
	if (hash[4] < '0' || hash[4] > '9' || hash[5] < '0' || hash[5] > '9')
		return false;
	int cost = (hash[4] - '0') * 10 + hash[5] - '0';
	return cost >= BCRYPT_COST_MIN && cost <= BCRYPT_COST_MAX;
}

/* $5$, $6$ (SHA-crypt) and $y$ (yescrypt), with what crypt(5) says of their parts. */
static bool is_other(const char *hash)
{
	if (strncmp(hash, "$5$", 3) != 0 && strncmp(hash, "$6$", 3) != 0 && strncmp(hash, "$y$", 3) != 0)
		return false;
	const char *last = strrchr(hash, '$');
	return last > hash + 2 && strlen(last) > 20 && is_of(hash, "$=");
}

static int refuse(size_t line, const char *why, Error *error)
{
	return error_set(error, -EBADMSG, "line %zu: %s; `htpasswd -B` writes lines that are right", line, why);
}

static int parse_line(char *line, size_t number, HtpasswdUser *ret_user, Error *error)
{
	char *colon = strchr(line, ':');
	if (!colon || colon == line)
		return refuse(number, "it is not USER:HASH", error);
	*colon = '\0';
	const char *hash = colon + 1;
	if (strlen(line) > HTPASSWD_USER_MAX)
		return refuse(number, "the user's name is too long", error);
	if (strlen(hash) > HASH_MAX || (!is_bcrypt(hash) && !is_other(hash)))
		return refuse(
			number,
			"the hash is neither bcrypt (of cost 4 to 16) nor SHA-256, SHA-512 or yescrypt of crypt(3)",
			error);
	HtpasswdUser user = { .name = strdup(line), .hash = strdup(hash) };
	if (!user.name || !user.hash) {
		free(user.name);
		free(user.hash);
		return error_set(error, -ENOMEM, "out of memory");
	}
	*ret_user = user;
	return 0;
}

static int compare(const void *left, const void *right)
{
	return strcmp(((const HtpasswdUser *)left)->name, ((const HtpasswdUser *)right)->name);
}

static int add(Htpasswd *htpasswd, size_t *room, const HtpasswdUser *user)
{
	if (htpasswd->count == *room) {
		size_t more = *room ? 2 * *room : 16;
		HtpasswdUser *users = reallocarray(htpasswd->users, more, sizeof(*users));
		if (!users)
			return -ENOMEM;
		htpasswd->users = users;
		*room = more;
	}
	htpasswd->users[htpasswd->count++] = *user;
	return 0;
}

static int parse_lines(char *text, Htpasswd *htpasswd, Error *error)
{
	size_t number = 0, room = 0;
	for (char *line; (line = strsep(&text, "\n"));) {
		HtpasswdUser user;
		size_t length = strlen(line);
		if (length > 0 && line[length - 1] == '\r')
			line[length - 1] = '\0';
		number++;
		if (line[0] == '\0' || line[0] == '#')
			continue;
		if (htpasswd->count == HTPASSWD_USERS_MAX)
			return refuse(number, "there are too many users", error);
		int r = parse_line(line, number, &user, error);
		if (r < 0)
			return r;
		if (add(htpasswd, &room, &user) < 0) {
			free(user.name);
			free(user.hash);
			return error_set(error, -ENOMEM, "out of memory");
		}
	}
	return 0;
}

int htpasswd_parse(const char *text, size_t size, Htpasswd *ret_htpasswd, Error *error)
{
	_cleanup_(htpasswd_done) Htpasswd htpasswd = { 0 };
	if (memchr(text, '\0', size))
		return error_set(error, -EBADMSG, "it is no text file");
	_cleanup_free_ char *copy = strndup(text, size);
	if (!copy)
		return error_set(error, -ENOMEM, "out of memory");
	int r = parse_lines(copy, &htpasswd, error);
	if (r < 0)
		return r;
	if (htpasswd.count == 0)
		return error_set(error, -EBADMSG, "nobody is in it; `htpasswd -B` adds users");
	qsort(htpasswd.users, htpasswd.count, sizeof(*htpasswd.users), compare);
	for (size_t i = 1; i < htpasswd.count; i++)
		if (compare(&htpasswd.users[i - 1], &htpasswd.users[i]) == 0)
			return error_set(error, -EBADMSG, "user \"%s\" stands there twice; leave one line",
					 htpasswd.users[i].name);
	*ret_htpasswd = htpasswd;
	htpasswd = (Htpasswd){ 0 };
	return 0;
}

void htpasswd_done(Htpasswd *htpasswd)
{
	for (size_t i = 0; i < htpasswd->count; i++) {
		free(htpasswd->users[i].name);
		free(htpasswd->users[i].hash);
	}
	free(htpasswd->users);
	*htpasswd = (Htpasswd){ 0 };
}

const HtpasswdUser *htpasswd_find(const Htpasswd *htpasswd, const char *name)
{
	HtpasswdUser key = { .name = (char *)(uintptr_t)name };
	return htpasswd->count == 0
		       ? NULL
		       : bsearch(&key, htpasswd->users, htpasswd->count, sizeof(*htpasswd->users), compare);
}
