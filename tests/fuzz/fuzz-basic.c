/* The value of a Basic Authorization header: what comes out is a login, and gives back what came in. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "fs/net/net-basic.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_free_ char *base64 = strndup((const char *)data, size);
	char login[NET_BASIC_MAX + 1], again[2 * NET_BASIC_MAX], small[8];
	if (!base64)
		return 0;
	if (net_basic_decode(base64, small, sizeof(small)) == 0 && strlen(small) >= sizeof(small))
		abort();
	if (net_basic_decode(base64, login, sizeof(login)) < 0)
		return 0;
	size_t length = strlen(login);
	if (length > NET_BASIC_MAX || !strchr(login, ':'))
		abort();
	/* All but the bits that padding hides. */
	int count = EVP_EncodeBlock((unsigned char *)again, (const unsigned char *)login, (int)length);
	if ((size_t)count != strlen(base64) || (count > 4 && memcmp(again, base64, (size_t)count - 4) != 0))
		abort();
	return 0;
}
