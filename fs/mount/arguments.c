#include "fs/mount/arguments.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "fs/base/fd.h"

bool argument_number(const char *text, long max, long *ret_number)
{
	if (!isdigit((unsigned char)text[0]))
		return false;
	char *end;
	errno = 0;
	long number = strtol(text, &end, 10);
	if (errno != 0 || *end != '\0' || number > max)
		return false;
	*ret_number = number;
	return true;
}

int ready_send(int fd, const char *sentence)
{
	static const char ready = READY_BYTE;
	int r = sentence ? fd_write_all(fd, sentence, strlen(sentence)) : fd_write_all(fd, &ready, 1);
	(void)close(fd);
	return r;
}

int ready_wait(int fd, char *ret_sentence, unsigned long size)
{
	ssize_t used = fd_read_full(fd, ret_sentence, 1);
	if (used < 0)
		return (int)used;
	if (used == 0)
		return -EPIPE;
	if (ret_sentence[0] == READY_BYTE)
		return 0;
	ssize_t rest = fd_read_full(fd, ret_sentence + 1, size - 2);
	if (rest < 0)
		return (int)rest;
	ret_sentence[1 + rest] = '\0';
	return -ECANCELED;
}
