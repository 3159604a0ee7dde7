/* Telling the service manager, by the socket that NOTIFY_SOCKET names (sd_notify(3)). Without it nobody is told. */
#pragma once

/* Sends lines such as "READY=1". Never fails: who listens is not this process's concern. */
void node_notify(const char *state);

/* "RELOADING=1", with the time it has to have. */
void node_notify_reloading(void);
