/*
 * rule/coalesce.h
 *	  Many captured changes of one object become one.
 *
 * Pure C. Changes come in no particular order (capture writes them as
 * transactions run), so only what does not depend on order is kept: whether
 * the object was born, deleted or touched, the union of changed columns,
 * and who gave birth to it.
 */
#ifndef ENT_RULE_COALESCE_H
#define ENT_RULE_COALESCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Operations of the change table. */
#define ENT_CHANGE_INSERT	'I'
#define ENT_CHANGE_UPDATE	'U'
#define ENT_CHANGE_DELETE	'D'
#define ENT_CHANGE_TRUNCATE	'T'		/* of the whole table; key is empty */
#define ENT_CHANGE_HANDOVER	'H'		/* entanglement.handover says to whom; not
									 * for ent_coalesce_add */

#define ENT_SET_MAX_BYTES	200		/* 1600 columns */

typedef struct EntFolded
{
	bool		born;			/* an INSERT is among the changes */
	bool		died;			/* a DELETE is among them */
	int32_t		owner;			/* of the INSERT; 0: none. Of several, that of
								 * the youngest transaction */
	uint32_t	insert_xid;		/* transaction of that INSERT */
	uint32_t	delete_xid;		/* youngest transaction of a DELETE */
	uint32_t	changes;		/* how many were folded */
	uint16_t	setlen;			/* bytes of set in use */
	uint8_t		set[ENT_SET_MAX_BYTES]; /* bit attnum-1: column changed */
} EntFolded;

extern void ent_coalesce_init(EntFolded *f);
/*
 * set: bitmap by attnum - 1, empty for INSERT and DELETE; what is behind
 * ENT_SET_MAX_BYTES is dropped (no column has such a number). TRUNCATE counts
 * as DELETE, an unknown operation as UPDATE.
 */
extern void ent_coalesce_add(EntFolded *f, char op, int32_t owner,
							 uint32_t xid, const uint8_t *set, size_t setlen);

/* One more column has changed: bit attnum - 1. */
extern void ent_coalesce_column(EntFolded *f, int bit);

typedef enum EntVerdict
{
	ENT_VERDICT_TOUCH,			/* live, these columns changed */
	ENT_VERDICT_BIRTH,			/* live, all columns new */
	ENT_VERDICT_DEATH,			/* gone */
	ENT_VERDICT_LOOK			/* order matters: look whether the row exists;
								 * then BIRTH or DEATH */
} EntVerdict;

/* All committed changes of the object up to the snapshot are in f. */
extern EntVerdict ent_coalesce_verdict(const EntFolded *f);

#endif							/* ENT_RULE_COALESCE_H */
