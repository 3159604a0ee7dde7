/* The answers of a token server and of a credential helper: what comes out can stand in a header, or in a form. */
#include <stdlib.h>
#include <string.h>

#include "fs/net/net-helper.h"
#include "fs/net/net-token.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	NetToken token;
	NetHelperLogin login;
	if (net_token_parse((const char *)data, size, &token) == 0) {
		if (!token.text[0] || strpbrk(token.text, " \r\n\t") || token.seconds < 1 || token.seconds > 86400)
			abort();
		net_token_done(&token);
	}
	if (net_helper_parse((const char *)data, size, &login) == 0) {
		if (!login.user[0] || strpbrk(login.user, ":\r\n") || strpbrk(login.secret, "\r\n"))
			abort();
		net_helper_login_done(&login);
	}
	return 0;
}
