/*
 * api/logged.h
 *	  Tables that are captured from the log: in, out, and compared.
 */
#ifndef ENT_API_LOGGED_H
#define ENT_API_LOGGED_H

#include "postgres.h"

#include "nodes/pg_list.h"
#include "utils/rel.h"

/*
 * Raises an error with a hint unless the log of this server tells enough of
 * the table's rows: settings, replica identity.
 */
extern void ent_logged_check(Relation rel, Oid key_index);

/*
 * Raises ERRCODE_OBJECT_IN_USE if that is no more true of a table that is captured
 * from the log, or of a partition. SPI must be connected.
 */
extern void ent_logged_check_all(void);

/* Raises: the log does not tell every state of a table. */
extern void ent_logged_refuse_states(const char *table);

/* Tables that wait for the slot are captured from the log; by the collector. */
extern void ent_logged_start(void);

/* Is there log that was not read, and that the slot will never tell? */
extern bool ent_logged_interrupted(void);
/*
 * If so: of all tables captured from the log, objects without a row and rows that
 * have been written since are captured. By the collector.
 */
extern void ent_logged_compare(void);
/* The same of these tables (numbers), whose rows the log does not tell. */
extern void ent_logged_compare_tables(List *nos);

#endif							/* ENT_API_LOGGED_H */
