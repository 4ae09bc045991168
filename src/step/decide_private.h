/*
 * step/decide_private.h
 *	  What the files of decide share: hooks around what is done.
 */
#ifndef ENT_STEP_DECIDE_PRIVATE_H
#define ENT_STEP_DECIDE_PRIVATE_H

#include "postgres.h"

#include "step/decide.h"

/* What is kept between the two. */
typedef struct EntDecideLook
{
	EntHooks   *constructed;	/* to be asked after; NULL: none */
	const EntHookRow *old;		/* NULL: there is none to be seen */
} EntDecideLook;

/*
 * Both are called as the role, in the subtransaction in which it is done, before
 * and after; they raise ERRCODE_INSUFFICIENT_PRIVILEGE and set asked->refusal when
 * a hook says no. key: of the row as it is then.
 */
extern void ent_decide_ask_before(EntAsked *asked, EntDecideLook *look);
extern void ent_decide_ask_after(EntAsked *asked, EntDecideLook *look,
								 const Datum *key);

#endif							/* ENT_STEP_DECIDE_PRIVATE_H */
