/* The access log. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fs/base/fd.h"
#include "tools/serve/serve-listen.h"
#include "tools/serve/serve-request.h"

/* Copies `text` so that it cannot break a line of the log or a quoted field. */
static void log_safe(const char *text, char *ret_text, size_t size)
{
	size_t used = 0;
	for (; *text && used + sizeof("\\xff") < size; text++) {
		unsigned char byte = (unsigned char)*text;
		if (byte > ' ' && byte < 0x7f && byte != '"' && byte != '\\')
			ret_text[used++] = *text;
		else
			used += (size_t)snprintf(ret_text + used, size - used, "\\x%02x", byte);
	}
	ret_text[used] = '\0';
}

/* The length is what was announced, the last word tells whether it was sent. */
void serve_log_request(const ServeRequest *request, double seconds, bool complete)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(request->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	char peer[SERVE_ADDRESS_TEXT] = "?", method[32], path[1024], date[32], line[1280];
	if (info && info->client_addr)
		(void)serve_address_text(info->client_addr, peer);
	log_safe(request->method, method, sizeof(method));
	log_safe(request->path, path, sizeof(path));
	time_t now = time(NULL);
	struct tm utc;
	(void)strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
	int length = snprintf(line, sizeof(line), "%s %s %s %s %u %" PRIu64 " %.6f %s\n", date, peer, method, path,
			      request->status, request->length, seconds, complete ? "ok" : "cut");
	/* Serving goes on when the log's disk is full. */
	if (length > 0 && fd_write_all(request->server->access_log, line, (size_t)length) < 0)
		return;
}
