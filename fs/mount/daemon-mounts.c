#include "fs/mount/daemon-mounts.h"

#include <errno.h>

/* The calls come with the keeper's daemon form. */
struct DaemonMounts {
	int socket;
};

static int not_yet(Error *error)
{
	return error_set(error, -ENOSYS, "the keeper has no daemon form yet");
}

int daemon_mounts_open(_unused_ const DaemonMountsOptions *options, _unused_ DaemonMounts **ret_mounts, Error *error)
{
	return not_yet(error);
}

DaemonMounts *daemon_mounts_close(DaemonMounts *mounts)
{
	free(mounts);
	return NULL;
}

int daemon_mounts_fd(const DaemonMounts *mounts)
{
	return mounts->socket;
}

int daemon_mounts_attach(_unused_ DaemonMounts *mounts, _unused_ const DaemonAttach *attach,
			 _unused_ DaemonSlot *ret_slot, Error *error)
{
	return not_yet(error);
}

int daemon_mounts_detach(_unused_ DaemonMounts *mounts, _unused_ uint32_t slot, Error *error)
{
	return not_yet(error);
}

int daemon_mounts_list(_unused_ DaemonMounts *mounts, _unused_ DaemonSlot **ret_slots, _unused_ size_t *ret_count,
		       Error *error)
{
	return not_yet(error);
}

int daemon_mounts_upgrade(_unused_ DaemonMounts *mounts, Error *error)
{
	return not_yet(error);
}

int daemon_mounts_end(_unused_ DaemonMounts *mounts, Error *error)
{
	return not_yet(error);
}
