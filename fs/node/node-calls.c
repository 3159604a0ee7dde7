/* The calls of the control protocol. */
#include <errno.h>
#include <sys/socket.h>

#include "fs/base/log.h"
#include "fs/node/node-private.h"

/* Also for the quick one: who asks wants to know whether this is the daemon for it. */
static int ping(const Node *node, json_t **ret_answer)
{
	*ret_answer = json_pack("{s:s, s:s, s:s, s:i}", "version", node->options.version, "cache", node->options.cache,
				"state", node->options.state, "pid", (int)getpid());
	return *ret_answer ? 0 : -ENOMEM;
}

int node_reload(Node *node, Error *error)
{
	NodeSettings settings;
	int r = node->options.reload ? node->options.reload(node->options.arg, &settings, error) : 0;
	if (r == 0 && node->options.reload)
		r = node_settings_set(node, &settings);
	if (r == 0)
		log_info("the configuration was read again");
	return r;
}

/* The process at the other end, which stays the same when it goes on as another program; 0: not known. */
static pid_t keeper_process(const DaemonMounts *mounts)
{
	struct ucred peer = { 0 };
	socklen_t size = sizeof(peer);
	return getsockopt(daemon_mounts_fd(mounts), SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 ? 0 : peer.pid;
}

/* Keeper and server first; then the caller's answer goes out, and this program follows. Who asks may want to upgrade all other keepers, too. */
static int upgrade(Node *node, json_t **ret_answer, Error *error)
{
	DaemonMounts *mounts;
	int r = node_keeper_take(node, &mounts, error);
	if (r < 0)
		return r;
	r = daemon_mounts_upgrade(mounts, error);
	pid_t keeper = keeper_process(mounts);
	node_keeper_give(node, r);
	if (r < 0)
		return r;
	log_info("keeper and server go on as the programs that are installed now");
	node_lock(node);
	node->upgrade = true;
	node_unlock(node);
	node_wake(node);
	*ret_answer = json_pack("{s:i}", "keeper", (int)keeper);
	return *ret_answer ? 0 : error_set(error, -ENOMEM, "out of memory");
}

/* The mounts go at the very end, when nobody is answered any more. */
static int end(Node *node)
{
	log_info("asked to end everything");
	node_lock(node);
	node->end = true;
	node_unlock(node);
	node_wake(node);
	return 0;
}

static void log_call(const ControlRequest *request, int r, const Error *error)
{
	const char *call = control_verb_name(request->verb), *who = request->owner ?: request->reference ?: "";
	if (r == -ECANCELED)
		log_info("%s given up: who asked for it has gone for=%s", call, who);
	else if (r < 0)
		log_warning("%s failed: %s for=%s", call, error_text(error, r), who);
	else
		log_info("%s for=%s%s%s", call, who, request->owner && request->reference ? " reference=" : "",
			 request->owner && request->reference ? request->reference : "");
}

int node_handle(void *arg, ControlCall *call, const ControlRequest *request, json_t **ret_answer, Error *error)
{
	Node *node = arg;
	int r = -ENOSYS;
	switch (request->verb) {
	case CONTROL_PING:
		return ping(node, ret_answer);
	case CONTROL_LIST:
		return node_list(node, request->after, ret_answer, error);
	case CONTROL_STATUS:
		return node_status(node, ret_answer, error);
	case CONTROL_ATTACH:
		r = node_attach(node, call, request, ret_answer, error);
		break;
	case CONTROL_DETACH:
		r = node_detach(node, request->owner, request->lazy, ret_answer, error);
		break;
	case CONTROL_PULL:
		r = node_pull(node, call, request, ret_answer, error);
		break;
	case CONTROL_PIN:
		r = node_pin(node, call, request, ret_answer, error);
		break;
	case CONTROL_UNPIN:
		r = node_unpin(node, request, ret_answer, error);
		break;
	case CONTROL_RELOAD:
		return node_reload(node, error);
	case CONTROL_UPGRADE:
		r = upgrade(node, ret_answer, error);
		break;
	case CONTROL_END:
		return end(node);
	case CONTROL_VERBS:
		break;
	}
	log_call(request, r, error);
	return r;
}
