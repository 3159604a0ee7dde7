#include "fs/base/digest.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdatomic.h>
#include <string.h>

struct DigestState {
	EVP_MD_CTX *context;
};

bool digest_equal(const Digest *left, const Digest *right)
{
	return memcmp(left->bytes, right->bytes, DIGEST_SIZE) == 0;
}

int digest_compare(const Digest *left, const Digest *right)
{
	return memcmp(left->bytes, right->bytes, DIGEST_SIZE);
}

char *digest_hex(const Digest *digest, char ret_hex[static DIGEST_HEX_SIZE])
{
	static const char digits[] = "0123456789abcdef";
	for (size_t i = 0; i < DIGEST_SIZE; i++) {
		ret_hex[2 * i] = digits[digest->bytes[i] >> 4];
		ret_hex[2 * i + 1] = digits[digest->bytes[i] & 15];
	}
	ret_hex[2 * DIGEST_SIZE] = '\0';
	return ret_hex;
}

char *digest_text(const Digest *digest, char ret_text[static DIGEST_TEXT_SIZE])
{
	memcpy(ret_text, "sha256:", 7);
	digest_hex(digest, ret_text + 7);
	return ret_text;
}

static int hex_value(char digit)
{
	if (digit >= '0' && digit <= '9')
		return digit - '0';
	if (digit >= 'a' && digit <= 'f')
		return digit - 'a' + 10;
	return -1;
}

int digest_from_hex(const char *hex, Digest *ret_digest)
{
	Digest digest;
	if (strlen(hex) != 2 * DIGEST_SIZE)
		return -EINVAL;
	for (size_t i = 0; i < DIGEST_SIZE; i++) {
		int high = hex_value(hex[2 * i]), low = hex_value(hex[2 * i + 1]);
		if (high < 0 || low < 0)
			return -EINVAL;
		digest.bytes[i] = (uint8_t)(high << 4 | low);
	}
	*ret_digest = digest;
	return 0;
}

int digest_from_text(const char *text, Digest *ret_digest)
{
	if (strncmp(text, "sha256:", 7) != 0)
		return -EINVAL;
	return digest_from_hex(text + 7, ret_digest);
}

/*
 * Fetched once. EVP_sha256() would be fetched with every use, and a process that has no memory when OpenSSL first looks for it has none
 * of it for ever. NULL: out of memory.
 */
static const EVP_MD *sha256(void)
{
	static _Atomic(EVP_MD *) fetched;
	EVP_MD *md = atomic_load(&fetched), *none = NULL;
	if (md)
		return md;
	md = EVP_MD_fetch(NULL, "SHA256", NULL);
	if (md && !atomic_compare_exchange_strong(&fetched, &none, md)) {
		EVP_MD_free(md);
		md = none;
	}
	return md;
}

int digest_prepare(void)
{
	return sha256() ? 0 : -ENOMEM;
}

int digest_of(const void *data, size_t size, Digest *ret_digest)
{
	Digest digest;
	const EVP_MD *md = sha256();
	if (!md || EVP_Digest(data, size, digest.bytes, NULL, md, NULL) != 1)
		return -ENOMEM;
	*ret_digest = digest;
	return 0;
}

int digest_state_new(DigestState **ret_state)
{
	_cleanup_(digest_state_free_p) DigestState *state = calloc(1, sizeof(*state));
	if (!state)
		return -ENOMEM;
	state->context = EVP_MD_CTX_new();
	const EVP_MD *md = sha256();
	if (!state->context || !md || EVP_DigestInit_ex(state->context, md, NULL) != 1)
		return -ENOMEM;
	*ret_state = TAKE_PTR(state);
	return 0;
}

DigestState *digest_state_free(DigestState *state)
{
	if (state) {
		EVP_MD_CTX_free(state->context);
		free(state);
	}
	return NULL;
}

int digest_state_add(DigestState *state, const void *data, size_t size)
{
	return EVP_DigestUpdate(state->context, data, size) == 1 ? 0 : -ENOMEM;
}

int digest_state_end(DigestState *state, Digest *ret_digest)
{
	Digest digest;
	if (EVP_DigestFinal_ex(state->context, digest.bytes, NULL) != 1 ||
	    EVP_DigestInit_ex(state->context, sha256(), NULL) != 1)
		return -ENOMEM;
	*ret_digest = digest;
	return 0;
}
