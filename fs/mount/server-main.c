/* imgfs-server: answers the requests of one mount until it dies or the mount is gone. Started by imgfs-keeper only. */
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>

#include "fs/base/log.h"
#include "fs/mount/arguments.h"
#include "fs/mount/janitor.h"
#include "fs/mount/process.h"
#include "fs/mount/sandbox.h"
#include "fs/mount/server-daemon.h"
#include "fs/mount/session.h"

typedef struct Arguments {
	int fuse_fd;
	int init_fd;
	int journal_fd;
	int plan_fd;
	pid_t keeper;
	int ready_fd; /* -1: nobody waits */
} Arguments;

static int parse(int argc, char **argv, Arguments *ret_arguments)
{
	long numbers[6] = { [5] = -1 };
	if (argc != 6 && argc != 7)
		return -EINVAL;
	for (int i = 1; i < argc; i++) {
		if (!argument_number(argv[i], INT32_MAX, &numbers[i - 1]))
			return -EINVAL;
	}
	*ret_arguments = (Arguments){
		.fuse_fd = (int)numbers[0],
		.init_fd = (int)numbers[1],
		.journal_fd = (int)numbers[2],
		.plan_fd = (int)numbers[3],
		.keeper = (pid_t)numbers[4],
		.ready_fd = (int)numbers[5],
	};
	return 0;
}

/* Only the keeper decides about the end of a mount; what a terminal or a unit sends to the whole group is for it. */
static void ignore_signals(void)
{
	static const int ignored[] = { SIGTERM, SIGINT, SIGHUP, SIGPIPE };
	for (size_t i = 0; i < ELEMENTS(ignored); i++)
		(void)signal(ignored[i], SIG_IGN);
}

static int open_server(const Arguments *arguments, MountServer **ret_server, Error *error)
{
	_cleanup_(mount_server_free_p) MountServer *server = NULL;
	_cleanup_(mount_image_unref_p) MountImage *image = NULL;
	_cleanup_(mount_plan_done) MountPlan plan = MOUNT_PLAN_NULL;
	int r = mount_plan_read(arguments->plan_fd, &plan, error);
	if (r < 0)
		return r;
	if (plan.cache_fd >= 0) /* it is the janitor's */
		(void)close(TAKE_FD(plan.cache_fd));
	if (mount_server_new(plan.metrics_fd, &server) < 0 ||
	    mount_server_add(server, &(MountPlace){ .name = "" }, &plan, &image) < 0)
		return error_set(error, -ENOMEM, "out of memory");
	if (arguments->ready_fd >= 0)
		r = mount_image_open(image, error);
	else
		/* Nobody waits to hear that this mount cannot be served: it was, until now. */
		(void)!ops_open_image(image);
	if (r < 0)
		return r;
	*ret_server = TAKE_PTR(server);
	return 0;
}

static int open_session(const Arguments *arguments, const Ops *ops, Journal *journal, Session **ret_session,
			Error *error)
{
	FdMap init = { 0 };
	int r = fd_map(arguments->init_fd, &init);
	if (r < 0)
		return error_set(error, r, "cannot map the saved FUSE_INIT: %s", strerror(-r));
	r = session_new(arguments->fuse_fd, init.data, init.size, ops, journal, ret_session, error);
	fd_unmap(&init);
	return r;
}

/* What the process holds. It is torn down only after the threads have ended; otherwise the process ends with it. */
typedef struct Process {
	MountServer *server;
	Journal *journal;
	ReadPool *pool;
	Ops ops;
	Session *session;
} Process;

/* It keeps the privileges that the server gives up, and nothing else of it. */
static int start_janitor(const Arguments *arguments, Error *error)
{
	_cleanup_(mount_plan_done) MountPlan plan = MOUNT_PLAN_NULL;
	int r = mount_plan_read(arguments->plan_fd, &plan, error);
	if (r < 0)
		return r;
	r = janitor_start(&plan);
	return r < 0 ? error_set(error, r, "cannot start a process: %s", strerror(-r)) : 0;
}

/* Threads come after the privileges have gone: a filter is a thread's own. */
static int open_process(const Arguments *arguments, Process *process, Error *error)
{
	int r = digest_prepare();
	if (r < 0)
		return error_set(error, r, "out of memory");
	r = journal_open(arguments->journal_fd, &process->journal);
	if (r < 0)
		return error_set(error, r, "cannot open the journal: %s", strerror(-r));
	r = start_janitor(arguments, error);
	if (r == 0)
		r = process_drop_privileges(arguments->keeper, error);
	if (r == 0)
		r = sandbox_enter(error);
	return r < 0 ? r : open_server(arguments, &process->server, error);
}

static int start_process(const Arguments *arguments, Process *process, Error *error)
{
	int r = read_pool_new(mount_server_metrics(process->server), &process->pool);
	if (r < 0)
		return error_set(error, r, "cannot start threads: %s", strerror(-r));
	process->ops = (Ops){ .kind = OPS_PRIVATE, .server = process->server, .pool = process->pool };
	r = open_session(arguments, &process->ops, process->journal, &process->session, error);
	if (r < 0)
		return r;
	size_t taken_over = session_recover(process->session);
	(void)atomic_fetch_add(&mount_server_metrics(process->server)->taken_over, taken_over);
	r = session_start(process->session);
	return r < 0 ? error_set(error, r, "cannot start threads: %s", strerror(-r)) : 0;
}

static void close_process(Process *process)
{
	/* Ends every wait, so that the pool has nothing left to wait for; its threads may still be reading what has arrived. */
	mount_server_stop(process->server);
	read_pool_free(process->pool);
	session_free(process->session);
	journal_free(process->journal);
	mount_server_free(process->server);
}

static int serve(Arguments *arguments, Error *error)
{
	Process process = { 0 };
	int r = open_process(arguments, &process, error);
	if (r == 0)
		r = start_process(arguments, &process, error);
	if (r < 0)
		return r;
	if (arguments->ready_fd >= 0) {
		r = ready_send(TAKE_FD(arguments->ready_fd), NULL);
		if (r < 0)
			return error_set(error, r, "the keeper has ended");
	}
	r = session_wait(process.session);
	if (r < 0)
		return error_set(error, r, "cannot read requests: %s", strerror(-r));
	close_process(&process);
	return 0;
}

int main(int argc, char **argv)
{
	Arguments arguments = { .ready_fd = -1 };
	bool daemon = server_daemon_is_meant(argc, argv);
	if (!daemon && parse(argc, argv, &arguments) < 0) {
		(void)fprintf(stderr, SERVER_PROGRAM " is started by " KEEPER_PROGRAM ", not by hand\n");
		return 2;
	}
	(void)prctl(PR_SET_NAME, SERVER_PROGRAM);
	log_open(SERVER_PROGRAM, LOG_LEVEL_INFO);
	ignore_signals();

	Error error = { 0 };
	int r = daemon ? server_daemon_serve(argc, argv, &error) : serve(&arguments, &error);
	if (r == 0)
		return 0;
	log_error("%s", error_text(&error, r));
	if (arguments.ready_fd >= 0 && ready_send(arguments.ready_fd, error_text(&error, r)) < 0)
		log_error("the keeper has ended");
	/* Threads may still use what main() would tear down. */
	_exit(1);
}
