/* Private to the room: text that must not stay in memory. */
#pragma once

#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

/* Overwrites and frees; NULL is none. */
static inline void net_secret_wipe(char **text)
{
	if (*text)
		OPENSSL_cleanse(*text, strlen(*text));
	free(*text);
	*text = NULL;
}
