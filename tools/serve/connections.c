#include "tools/serve/connections.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <utlist.h>

#include "fs/base/deadline.h"

#define SWEEP_MILLISECONDS 250

struct Connections {
	ConnectionsOptions options;
	ServeMetrics *metrics; /* not owned */
	pthread_t thread;

	pthread_mutex_t lock; /* guards all below and every Connection's times */
	pthread_cond_t changed;
	Connection *list;
	bool draining;
	bool stopping;
};

static int64_t now_milliseconds(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Ends a connection's reads and writes; its own thread then closes it. The lock is held, so the descriptor is still its. */
static void cut(Connections *connections, Connection *connection)
{
	if (connection->cut)
		return;
	connection->cut = true;
	(void)shutdown(connection->fd, SHUT_RDWR);
	if (!connections->draining)
		serve_metrics_add(&connections->metrics->connections_cut, 1);
}

static void wait_for_change(Connections *connections, int64_t until)
{
	struct timespec time = { .tv_sec = until / 1000, .tv_nsec = until % 1000 * 1000000 };
	(void)pthread_cond_timedwait(&connections->changed, &connections->lock, &time);
}

static void *sweep(void *arg)
{
	Connections *connections = arg;
	(void)pthread_mutex_lock(&connections->lock);
	while (!connections->stopping) {
		Connection *connection;
		int64_t now = now_milliseconds();
		DL_FOREACH(connections->list, connection)
		{
			if (connection->deadline <= now)
				cut(connections, connection);
		}
		wait_for_change(connections, now + SWEEP_MILLISECONDS);
	}
	(void)pthread_mutex_unlock(&connections->lock);
	return NULL;
}

static int start_thread(Connections *connections)
{
	sigset_t all, before;
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	int r = pthread_create(&connections->thread, NULL, sweep, connections);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -r;
}

int connections_new(const ConnectionsOptions *options, ServeMetrics *metrics, Connections **ret_connections)
{
	Connections *connections = calloc(1, sizeof(*connections));
	if (!connections)
		return -ENOMEM;
	connections->options = *options;
	connections->metrics = metrics;
	deadline_cond_init(&connections->changed);
	(void)pthread_mutex_init(&connections->lock, NULL);
	int r = start_thread(connections);
	if (r < 0) {
		(void)pthread_cond_destroy(&connections->changed);
		(void)pthread_mutex_destroy(&connections->lock);
		free(connections);
		return r;
	}
	*ret_connections = connections;
	return 0;
}

Connections *connections_free(Connections *connections)
{
	if (!connections)
		return NULL;
	(void)pthread_mutex_lock(&connections->lock);
	connections->stopping = true;
	(void)pthread_cond_broadcast(&connections->changed);
	(void)pthread_mutex_unlock(&connections->lock);
	(void)pthread_join(connections->thread, NULL);
	(void)pthread_cond_destroy(&connections->changed);
	(void)pthread_mutex_destroy(&connections->lock);
	free(connections);
	return NULL;
}

Connection *connections_add(Connections *connections, int fd, gnutls_session_t session, ServeTlsKeys *keys)
{
	serve_metrics_add(&connections->metrics->connections, 1);
	Connection *connection = calloc(1, sizeof(*connection));
	if (!connection) {
		(void)serve_tls_keys_unref(keys);
		(void)shutdown(fd, SHUT_RDWR);
		return NULL;
	}
	*connection = (Connection){ .fd = fd, .session = session, .keys = keys };
	(void)pthread_mutex_lock(&connections->lock);
	connection->deadline = now_milliseconds() + connections->options.first_request;
	DL_APPEND(connections->list, connection);
	(void)pthread_mutex_unlock(&connections->lock);
	serve_metrics_add(&connections->metrics->connections_open, 1);
	return connection;
}

void connections_remove(Connections *connections, Connection *connection)
{
	if (!connection)
		return;
	(void)pthread_mutex_lock(&connections->lock);
	DL_DELETE(connections->list, connection);
	(void)pthread_cond_broadcast(&connections->changed);
	(void)pthread_mutex_unlock(&connections->lock);
	(void)atomic_fetch_sub_explicit(&connections->metrics->connections_open, 1, memory_order_relaxed);
	(void)serve_tls_keys_unref(connection->keys);
	free(connection);
}

void connections_busy(Connections *connections, Connection *connection)
{
	(void)pthread_mutex_lock(&connections->lock);
	connection->deadline = INT64_MAX;
	(void)pthread_mutex_unlock(&connections->lock);
}

void connections_idle(Connections *connections, Connection *connection)
{
	(void)pthread_mutex_lock(&connections->lock);
	connection->deadline = now_milliseconds() + connections->options.next_request;
	if (connections->draining) {
		cut(connections, connection);
		(void)pthread_cond_broadcast(&connections->changed);
	}
	(void)pthread_mutex_unlock(&connections->lock);
}

static bool any_busy(const Connections *connections)
{
	const Connection *connection;
	DL_FOREACH(connections->list, connection)
	{
		if (connection->deadline == INT64_MAX)
			return true;
	}
	return false;
}

void connections_drain(Connections *connections, int64_t milliseconds)
{
	int64_t until = now_milliseconds() + milliseconds;
	(void)pthread_mutex_lock(&connections->lock);
	connections->draining = true;
	Connection *connection;
	DL_FOREACH(connections->list, connection)
	{
		if (connection->deadline != INT64_MAX)
			cut(connections, connection);
	}
	while (any_busy(connections) && now_milliseconds() < until)
		wait_for_change(connections, until);
	(void)pthread_mutex_unlock(&connections->lock);
}
