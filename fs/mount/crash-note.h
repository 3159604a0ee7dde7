/*
 * Notes in the journal which image's request a thread was at when its server crashes, so that the keeper knows which image to refuse when
 * servers die of it again and again.
 */
#pragma once

#include "fs/mount/journal.h"

/* For the signals of a crash; the signal then ends the process as it would have. */
void crash_note_install(void);

/* The calling thread opens an image that nobody has asked for; 0: no more. */
void crash_note_opening(Journal *journal, uint32_t image);
