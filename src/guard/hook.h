/*
 * guard/hook.h
 *	  Users' functions are asked whether something may be sent, or stored.
 *
 * They can only forbid: what rights and row-level security do not allow is not
 * asked about. All that apply are asked in order until one says no; NULL is no
 * answer, an error is a no. A function runs as its owner, in a security-restricted
 * operation with pinned settings, in a read-only subtransaction that is
 * always undone, so that nothing but its answer remains.
 */
#ifndef ENT_GUARD_HOOK_H
#define ENT_GUARD_HOOK_H

#include "postgres.h"

#include "store/hook.h"
#include "store/relinfo.h"

/* Hooks of one kind that apply to one table and peer. */
typedef struct EntHooks EntHooks;

/*
 * NULL: there are none, so nothing is to be asked. Costs a look into a list. Else
 * it lives in the current context, and no longer than the transaction. role: the
 * peer's. SPI connected; may be called as any user.
 */
extern EntHooks *ent_hooks_for(EntHookKind kind, EntRelation *rel, int32 peer,
							   Oid role);

/*
 * A number that is another one when the should_send hooks that apply to the peer
 * and table have changed, or the function of one; 0: none apply.
 */
extern uint64 ent_hooks_digest(EntRelation *rel, int32 peer);

/* Columns of the table that the peer's role may SELECT; NULL: it sees no row. */
extern const bool *ent_hooks_visible(EntHooks *hooks);

/* Who said no. In the context that was the current one when it was asked. */
typedef struct EntHookRefusal
{
	const char *hook;			/* the function's name */
	bool		failed;			/* by an error: */
	const char *sqlstate;
	const char *message;
} EntHookRefusal;

/* A row or a part of one, by column of the table; given: what there is of it. */
typedef struct EntHookRow
{
	const bool *given;
	const Datum *values;
	const bool *nulls;
} EntHookRow;

/*
 * A row of the table put together: what upper gives, the key, and what lower gives
 * besides. Either may be NULL. In the current context.
 */
extern EntHookRow *ent_hook_row(EntRelation *rel, const EntHookRow *upper,
								const Datum *key, const EntHookRow *lower);

/*
 * May it be? false: *why says who forbade it. owner: number of the object's.
 * hooks is of the kind that is asked, not NULL. Values are made jsonb as the peer's
 * role. SPI connected; may be called as any user, within a subtransaction or not;
 * errors that are not the function's (a cancelled query) are raised.
 *
 * send: the object as the peer may see it, with its key among the columns.
 */
extern bool ent_hook_may_send(EntHooks *hooks, int32 owner, const Datum *key,
							  const EntHookRow *row, EntHookRefusal *why);

/* operation: "insert", "update" or "delete"; what is given besides the key. */
extern bool ent_hook_may_listen(EntHooks *hooks, int32 owner,
								const char *operation, const Datum *key,
								const EntHookRow *values, EntHookRefusal *why);

/* The row before and after; NULL: there is none. */
extern bool ent_hook_may_construct(EntHooks *hooks, int32 owner,
								   const EntHookRow *old, const EntHookRow *new,
								   EntHookRefusal *why);

/* As the requester, and who looks at parked rows, is told. */
extern char *ent_hook_refusal_text(const EntHookRefusal *why);

/*
 * Notes it among what is refused (store/refusal.h): something of that owner and table
 * that came from the peer; sending: that was to be sent to it.
 */
extern void ent_hook_note_refusal(const EntHookRefusal *why, int32 owner,
								  int32 rel, bool sending);

/*
 * For people: while tell is set all hooks are asked, also those behind one that
 * says no, and each answer is told: 1 yes, 0 none, -1 no; error: why it failed,
 * or NULL.
 */
extern void ent_hooks_tell(EntHooks *hooks,
						   void (*tell) (void *arg, const EntHook *hook,
										 int answer, const char *error),
						   void *arg);

#endif							/* ENT_GUARD_HOOK_H */
