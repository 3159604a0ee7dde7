#include "fs/base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void error_write(Error *error, int code, const char *format, ...)
{
	if (!error)
		return;
	va_list args;
	va_start(args, format);
	(void)vsnprintf(error->message, sizeof(error->message), format, args);
	va_end(args);
	error->code = code;
}

int error_prefix(Error *error, int code, const char *format, ...)
{
	if (!error)
		return code;
	char before[sizeof(error->message) / 2];
	(void)snprintf(before, sizeof(before), "%.*s", (int)sizeof(before) - 1, error_text(error, code));

	va_list args;
	va_start(args, format);
	int length = vsnprintf(error->message, sizeof(error->message), format, args);
	va_end(args);
	size_t used = length < 0 ? 0 : (size_t)length;
	if (used + sizeof(": ") + strlen(before) <= sizeof(error->message)) {
		memcpy(error->message + used, ": ", 2);
		memcpy(error->message + used + 2, before, strlen(before) + 1);
	}
	error->code = code;
	return code;
}

bool error_is_shortage(int code)
{
	return code == -EMFILE || code == -ENFILE || code == -ENOMEM || code == -ENOBUFS;
}

const char *error_text(const Error *error, int code)
{
	if (error && error->message[0])
		return error->message;
	return strerrordesc_np(code < 0 ? -code : code) ?: "unknown error";
}
