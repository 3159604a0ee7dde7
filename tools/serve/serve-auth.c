#include "tools/serve/serve-auth.h"

#include <crypt.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "fs/base/digest.h"
#include "fs/base/fd.h"
#include "fs/net/net-basic.h"
#include "tools/serve/htpasswd.h"

#define FILE_MAX         (16u << 20)
#define HASHES_AT_A_TIME 2u
#define REMEMBERED       256u /* a power of two */
#define WAYS             4u
#define REMEMBER_SECONDS 600

/* The users of one reading of the file; counted, since a reload may come while hashes are computed. */
typedef struct Users {
	unsigned references; /* guarded by the lock */
	Htpasswd htpasswd;
} Users;

typedef struct Remembered {
	Digest mac; /* of user and password */
	time_t until;
} Remembered;

struct ServeAuth {
	char *path;
	uint8_t key[32]; /* of this process alone */
	sem_t slots;
	atomic_ulong hashes;

	pthread_mutex_t lock; /* guards all below, never held while hashing */
	Users *users;
	Remembered remembered[REMEMBERED];
};

static time_t now_seconds(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec;
}

static int load(const char *path, Users **ret_users, Error *error)
{
	_cleanup_free_ char *text = NULL;
	size_t size;
	int r = fd_read_file(AT_FDCWD, path, FILE_MAX, &text, &size);
	if (r < 0)
		return error_set(error, r, "users cannot be read from %s: %s", path, error_text(NULL, r));
	Users *users = calloc(1, sizeof(*users));
	if (!users)
		return error_set(error, -ENOMEM, "no memory for the users of %s", path);
	users->references = 1;
	r = htpasswd_parse(text, size, &users->htpasswd, error);
	if (r < 0) {
		free(users);
		return error_prefix(error, r, "%s", path);
	}
	*ret_users = users;
	return 0;
}

static void release(ServeAuth *auth, Users *users)
{
	(void)pthread_mutex_lock(&auth->lock);
	bool last = --users->references == 0;
	(void)pthread_mutex_unlock(&auth->lock);
	if (last) {
		htpasswd_done(&users->htpasswd);
		free(users);
	}
}

int serve_auth_new(const char *path, ServeAuth **ret_auth, Error *error)
{
	Users *users;
	int r = load(path, &users, error);
	if (r < 0)
		return r;
	ServeAuth *auth = calloc(1, sizeof(*auth));
	char *copy = strdup(path);
	if (!auth || !copy || RAND_bytes(auth->key, sizeof(auth->key)) != 1) {
		htpasswd_done(&users->htpasswd);
		free(users);
		free(auth);
		free(copy);
		return error_set(error, -ENOMEM, "no memory for the users of %s", path);
	}
	auth->path = copy;
	auth->users = users;
	(void)sem_init(&auth->slots, 0, HASHES_AT_A_TIME);
	(void)pthread_mutex_init(&auth->lock, NULL);
	*ret_auth = auth;
	return 0;
}

ServeAuth *serve_auth_free(ServeAuth *auth)
{
	if (!auth)
		return NULL;
	release(auth, auth->users);
	(void)pthread_mutex_destroy(&auth->lock);
	(void)sem_destroy(&auth->slots);
	OPENSSL_cleanse(auth->key, sizeof(auth->key));
	free(auth->path);
	free(auth);
	return NULL;
}

int serve_auth_reload(ServeAuth *auth, Error *error)
{
	Users *users;
	int r = load(auth->path, &users, error);
	if (r < 0)
		return r;
	(void)pthread_mutex_lock(&auth->lock);
	Users *old = auth->users;
	auth->users = users;
	memset(auth->remembered, 0, sizeof(auth->remembered));
	(void)pthread_mutex_unlock(&auth->lock);
	release(auth, old);
	return 0;
}

/* The WAYS places where a login may be remembered. The lock is held. */
static Remembered *places_of(ServeAuth *auth, const Digest *mac)
{
	return &auth->remembered[(mac->bytes[0] * WAYS) % REMEMBERED];
}

/* Was this login right lately? Takes a reference of the users to ask otherwise. */
static bool recall(ServeAuth *auth, const Digest *mac, Users **ret_users)
{
	bool known = false;
	time_t now = now_seconds();
	(void)pthread_mutex_lock(&auth->lock);
	const Remembered *places = places_of(auth, mac);
	for (size_t i = 0; i < WAYS; i++)
		known = known ||
			(places[i].until > now && CRYPTO_memcmp(places[i].mac.bytes, mac->bytes, DIGEST_SIZE) == 0);
	if (!known) {
		*ret_users = auth->users;
		auth->users->references++;
	}
	(void)pthread_mutex_unlock(&auth->lock);
	return known;
}

/* Takes the place that ends first. Not if the users have changed meanwhile. */
static void remember(ServeAuth *auth, const Digest *mac, const Users *users)
{
	(void)pthread_mutex_lock(&auth->lock);
	Remembered *places = places_of(auth, mac), *oldest = places;
	for (size_t i = 1; i < WAYS; i++)
		if (places[i].until < oldest->until)
			oldest = &places[i];
	if (users == auth->users)
		*oldest = (Remembered){ .mac = *mac, .until = now_seconds() + REMEMBER_SECONDS };
	(void)pthread_mutex_unlock(&auth->lock);
}

/*
 * The hash to compute for a login. Whoever is not in the file is measured by the hash of somebody who is, always the same one for a name,
 * so that the time an answer takes does not tell who exists.
 */
static const char *hash_for(const Users *users, const char *name, const Digest *mac, bool *ret_exists)
{
	const HtpasswdUser *user = htpasswd_find(&users->htpasswd, name);
	*ret_exists = user != NULL;
	if (!user)
		user = &users->htpasswd.users[mac->bytes[1] % users->htpasswd.count];
	return user->hash;
}

static bool compute(ServeAuth *auth, const char *password, const char *hash)
{
	void *data = NULL; /* some 32 kB, made and freed by hand since stacks here are small */
	int size = 0;
	while (sem_wait(&auth->slots) < 0)
		;
	const char *result = crypt_ra(password, hash, &data, &size);
	(void)sem_post(&auth->slots);
	(void)atomic_fetch_add_explicit(&auth->hashes, 1, memory_order_relaxed);
	size_t length = strlen(hash);
	bool same = result && strlen(result) == length && CRYPTO_memcmp(result, hash, length) == 0;
	if (data)
		OPENSSL_cleanse(data, (size_t)size);
	free(data);
	return same;
}

/* `login` is "user:password", cut at the colon here. */
static bool check_login(ServeAuth *auth, char *login, size_t length)
{
	Digest mac, name_mac;
	unsigned size = DIGEST_SIZE;
	Users *users;
	char *colon = strchr(login, ':');
	if (!HMAC(EVP_sha256(), auth->key, sizeof(auth->key), (const unsigned char *)login, length, mac.bytes, &size) ||
	    !HMAC(EVP_sha256(), auth->key, sizeof(auth->key), (const unsigned char *)login, (size_t)(colon - login),
		  name_mac.bytes, &size))
		return false;
	if (recall(auth, &mac, &users))
		return true;
	*colon = '\0';
	bool exists;
	const char *hash = hash_for(users, login, &name_mac, &exists);
	bool right = compute(auth, colon + 1, hash) && exists;
	if (right)
		remember(auth, &mac, users);
	release(auth, users);
	return right;
}

bool serve_auth_check(ServeAuth *auth, const char *header)
{
	static const char scheme[] = "Basic ";
	char login[NET_BASIC_MAX + 1];
	if (!header || strncasecmp(header, scheme, sizeof(scheme) - 1) != 0)
		return false;
	header += sizeof(scheme) - 1;
	header += strspn(header, " ");
	bool right = net_basic_decode(header, login, sizeof(login)) == 0 && check_login(auth, login, strlen(login));
	OPENSSL_cleanse(login, sizeof(login));
	return right;
}

unsigned long serve_auth_hashes(const ServeAuth *auth)
{
	return atomic_load_explicit(&auth->hashes, memory_order_relaxed);
}
