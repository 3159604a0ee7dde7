#include "fs/mount/crash-note.h"

#include <signal.h>
#include <stddef.h>

#include "fs/mount/worker.h"

/* What a thread is at without a request. */
static _Thread_local Journal *opening_journal;
static _Thread_local uint32_t opening_image;

void crash_note_opening(Journal *journal, uint32_t image)
{
	opening_journal = journal;
	opening_image = image;
}

/* SA_RESETHAND: the signal, raised again, is the end when this returns, even if somebody else has sent it. */
static void note(int signal)
{
	const Worker *worker = worker_current();
	if (worker && worker->journal)
		journal_blame(worker->journal, worker->at);
	else if (opening_journal && opening_image != 0)
		journal_blame_image(opening_journal, opening_image);
	(void)raise(signal);
}

void crash_note_install(void)
{
	static const int signals[] = { SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE };
	struct sigaction action = { .sa_handler = note, .sa_flags = (int)SA_RESETHAND };
	for (size_t i = 0; i < ELEMENTS(signals); i++)
		(void)sigaction(signals[i], &action, NULL);
}
