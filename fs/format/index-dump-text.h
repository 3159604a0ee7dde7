/* Words of the text form of docs/format.md section 4, for the dump's writer and reader. */
#pragma once

#define DUMP_TITLE "imgfs-index-dump 1"

/* Letters of an entry's type by its DT_* number, as ls(1) has them; a space is no type. */
#define DUMP_TYPES "?pc d b - l s"
