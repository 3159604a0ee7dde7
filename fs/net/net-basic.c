#include "fs/net/net-basic.h"

#include <errno.h>
#include <jansson.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <string.h>

static bool is_text(const unsigned char *text, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (text[i] < ' ' || text[i] == 0x7f)
			return false;
	return true;
}

static int check(const unsigned char *text, size_t size, char *ret_text, size_t room)
{
	if (size >= room || !is_text(text, size) || !memchr(text, ':', size))
		return -EINVAL;
	memcpy(ret_text, text, size);
	ret_text[size] = '\0';
	return 0;
}

bool net_basic_is_login(const char *text)
{
	size_t size = strlen(text);
	json_t *utf8 = json_string(text);
	bool right = utf8 && size <= NET_BASIC_MAX && is_text((const unsigned char *)text, size) && strchr(text, ':');
	json_decref(utf8);
	return right;
}

int net_basic_decode(const char *base64, char *ret_text, size_t size)
{
	/* EVP_DecodeBlock() skips white space, which has no place here, and counts padding as bytes. */
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	unsigned char plain[NET_BASIC_MAX + 4];
	size_t digits = strspn(base64, alphabet), padding = strspn(base64 + digits, "=");
	size_t length = digits + padding;
	if (base64[length] != '\0' || length == 0 || length % 4 != 0 || padding > 2 || length / 4 * 3 > sizeof(plain))
		return -EINVAL;
	int count = EVP_DecodeBlock(plain, (const unsigned char *)base64, (int)length);
	int r = count < (int)padding ? -EINVAL : check(plain, (size_t)count - padding, ret_text, size);
	OPENSSL_cleanse(plain, sizeof(plain));
	return r;
}
