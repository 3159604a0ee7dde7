/* User and password as the options of `imgfs mount` give them. */
#pragma once

#include "fs/base/error.h"

/*
 * A copy of the value of --user, and its password made illegible where it stood: `ps` shows it there to everybody. NULL: out of memory. Wipe
 * what is returned before it is freed.
 */
char *mount_login_take(char *value);

/*
 * "user:password" from `user`, which is that already or only the user. Then the password is the first line of `file` ("-": standard input), or, where
 * that is NULL, asked for on the terminal. Malloc'ed; wipe before freeing. Errors: -EINVAL (a password twice, or none can be had), reading's, -ENOMEM.
 */
int mount_login_read(const char *user, const char *file, char **ret_login, Error *error) _must_check_;

/* Wipes and frees. */
void mount_login_free(char *login);
