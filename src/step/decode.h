/*
 * step/decode.h
 *	  Changes of tables that are captured from the log (capture 'wal').
 *
 * In the collector only. Changes that the log tells of become rows of
 * entanglement.change, as the capture trigger would have written them.
 */
#ifndef ENT_STEP_DECODE_H
#define ENT_STEP_DECODE_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "nodes/pg_list.h"

/* Name of this database's slot, in the current context. */
extern char *ent_decode_slot_name(void);

/*
 * Raises an error with a hint unless this server lets us decode: wal_level,
 * and the libraries that it allows as output plugins.
 */
extern void ent_decode_check_server(void);

/* In a transaction that has written nothing; waits for those that run. */
extern void ent_decode_create_slot(void);
extern void ent_decode_drop_slot(void);	/* if there is one */
/* Everything before that is not told again; invalid: there is no slot. */
extern XLogRecPtr ent_decode_slot_position(void);

/*
 * Decodes what was committed when it was called, at most until about limit
 * changes were found, and writes them to the change log. To be called in a
 * transaction, SPI connected, whose active snapshot is its first. In it
 * ent_decode_keep notes how far the log was read; when that is true, then after its
 * commit ent_decode_confirm tells the slot. Returns how many; *more: there is more to decode;
 * *left: tables are captured by trigger again, and the log is done with them.
 */
extern uint64 ent_decode(int limit, bool *more, bool *left);
/*
 * Numbers of tables (List of int32, until the next round) whose rows the log did not tell
 * well enough: to be compared in the same transaction, before ent_decode_keep.
 */
extern List *ent_decode_doubtful(void);
extern bool ent_decode_keep(void);
extern void ent_decode_confirm(void);

/* After an error, or when nothing is to be decoded: lets the slot go. */
extern void ent_decode_release(void);

#endif							/* ENT_STEP_DECODE_H */
