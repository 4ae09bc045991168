/*
 * step/decide.h
 *	  At an owner's home: is a request carried out?
 *
 * PostgreSQL decides: the change is made as the role of the peer through which
 * the request arrived, with its rights and row-level security, and with the
 * table's constraints and triggers, in a subtransaction. Hooks may refuse it.
 */
#ifndef ENT_STEP_DECIDE_H
#define ENT_STEP_DECIDE_H

#include "postgres.h"

#include "guard/hook.h"
#include "store/relinfo.h"
#include "store/request.h"

/* What a request asks, in the types of the table here. */
typedef struct EntAsked
{
	EntRelation *rel;
	int32		peer;			/* it came from there; hooks are asked about it */
	Oid			role;
	int32		owner;
	char		op;				/* ENT_REQUEST_OP_* */
	bool		state;			/* rehearsed only: no request, but what an owner
								 * elsewhere says; create has a key, too */
	bool		has_key;
	Datum		key[ENT_WIRE_MAX_KEYS];
	bool	   *set;			/* by column: given */
	Datum	   *values;
	bool	   *nulls;
	EntHookRefusal *refusal;	/* answered: a hook refused it; or NULL */
} EntAsked;

/*
 * Fills in what the texts of a request say, as the role (a type's input may be
 * somebody's code). names and values: n of them; the first nkeys are the key's
 * columns. Raises errors about the data.
 */
extern void ent_decide_read(EntAsked *asked, const char *const *names,
							const char *const *values, int nkeys, int n);

/*
 * Does it. Returns true when it is done (for create, *key is the new object's
 * image), false with *answer otherwise. It waits two seconds for a lock at most.
 */
extern bool ent_decide(EntAsked *asked, bytea **key, EntRequestAnswer *answer);

/*
 * On the way: may the role do so here? As above, but everything is undone, hooks
 * and ordinary triggers are not asked, and only what the role may not do or not
 * see is refused: *answer says what it is all the same, with the SQLSTATE
 * ENT_DECIDE_REHEARSED if nothing.
 */
#define ENT_DECIDE_REHEARSED	"ENTRH"

extern bool ent_decide_rehearse(EntAsked *asked, EntRequestAnswer *answer);

/*
 * Runs run(arg) as the role in a subtransaction, again when it may be that it
 * only met somebody. false: it failed, and *answer says with what, in the
 * current context; only the end of the server is raised again.
 */
extern bool ent_decide_try(Oid role, void (*run) (void *arg), void *arg,
						   EntRequestAnswer *answer);

#endif							/* ENT_STEP_DECIDE_H */
