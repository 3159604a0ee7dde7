#include "fs/mount/crash-note.h"

#include <signal.h>
#include <stddef.h>

#include "fs/mount/worker.h"

/* SA_RESETHAND: the signal, raised again, is the end when this returns, even if somebody else has sent it. */
static void note(int signal)
{
	const Worker *worker = worker_current();
	if (worker && worker->journal)
		journal_blame(worker->journal, worker->at);
	(void)raise(signal);
}

void crash_note_install(void)
{
	static const int signals[] = { SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE };
	struct sigaction action = { .sa_handler = note, .sa_flags = (int)SA_RESETHAND };
	for (size_t i = 0; i < ELEMENTS(signals); i++)
		(void)sigaction(signals[i], &action, NULL);
}
