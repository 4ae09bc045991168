/*
 * guard/show.h
 *	  What a peer is shown of a table, as its role's rights are now.
 */
#ifndef ENT_GUARD_SHOW_H
#define ENT_GUARD_SHOW_H

#include "postgres.h"

#include "store/relinfo.h"
#include "store/subscription.h"

typedef struct EntShow
{
	bool		sees;			/* the table: its key, and columns as in may */
	bool		partial;		/* some of its rows, if any */
	bool		nothing;		/* none of its rows: the peer does not want them, or
								 * its filter is refused */
	int64		digest;			/* of all that decides which; a row may be
								 * seen now that could not before only if this is
								 * another one, or the row was changed */
	char	   *filter;			/* as ent_filter_sql made it; NULL: none */
	EntWish    *wish;			/* that it comes from; NULL: the peer wants all */
	const char *sqlstate;		/* what becomes of the wish: 00000, or why it is */
	const char *message;		/* ... refused */
} EntShow;

/* may: by column, filled. SPI connected; results in the current context. */
extern void ent_show_table(EntRelation *rel, int32 peer, Oid role, bool *may,
						   EntShow *show);

/*
 * Grows, within this process, when anything that ent_show_table depends on may
 * have changed: who sees another one than before asks again. Takes in what
 * other sessions have committed.
 */
extern uint64 ent_show_version(void);

/*
 * Tables that peers were shown whole, and are not any more, stop counting as such:
 * what is here by now they may have been told of, what is written from now on not.
 * Called in the transaction that changes rights, where we hear of it, and before anything is added, if rights
 * may have changed since the last call (in a transaction whose failure ends the
 * process, or the session). SPI connected.
 */
extern void ent_show_settle(void);
extern void ent_show_settle_if_changed(void);
/* Has that nothing to do? Needs a transaction only. */
extern bool ent_show_is_settled(void);

extern void ent_show_init(void);	/* registers callbacks, from _PG_init */

#endif							/* ENT_GUARD_SHOW_H */
