/*
 * store/hook.h
 *	  entanglement.hook: functions of users that are asked before something
 *	  is sent or stored; cached.
 */
#ifndef ENT_STORE_HOOK_H
#define ENT_STORE_HOOK_H

#include "postgres.h"

#include "fmgr.h"
#include "nodes/pg_list.h"

typedef enum EntHookKind
{
	ENT_HOOK_SEND,				/* an object to a peer */
	ENT_HOOK_LISTEN,			/* to what is to be stored */
	ENT_HOOK_CONSTRUCTED,		/* ... as it would be stored */
	ENT_HOOK_KINDS
} EntHookKind;

#define ENT_HOOK_MAX_ARGS	7

typedef struct EntHookType
{
	const char *name;			/* as add_hook takes it */
	int			nargs;
	Oid			args[ENT_HOOK_MAX_ARGS];
	const char *signature;		/* for people */
} EntHookType;

extern const EntHookType ent_hook_types[ENT_HOOK_KINDS];

typedef struct EntHook
{
	int32		no;				/* entanglement.hook.no */
	EntHookKind kind;
	Oid			function;
	Oid			relid;			/* InvalidOid: of every table */
	int32		peer;			/* 0: of every peer */
	char	   *name;			/* of the function; NULL: it cannot be called */
	Oid			owner;			/* of the function, as whom it runs */
	uint32		version;		/* changes with the function */
	FmgrInfo	fn;				/* fn_oid invalid: not looked up yet */
	MemoryContext context;		/* for what fn keeps */
} EntHook;

/*
 * Those of a kind in the order in which they are asked: List of EntHook *. Cached
 * in the process; valid until the end of the transaction. Needs a
 * transaction, and SPI.
 */
extern List *ent_hook_list(EntHookKind kind);

/*
 * Has the function the arguments, and the result, of that kind of hook? NULL: it
 * has; else why not, with *arguments true if that is about its arguments.
 */
extern const char *ent_hook_fault(EntHookKind kind, Oid function,
								  bool *arguments);

/* Grows, within this process, when they may have changed, or a function of one. */
extern uint64 ent_hook_version(void);

/* Every session learns that they have changed. To be called after writing. */
extern void ent_hook_invalidate(void);

extern void ent_hook_init(void);	/* registers callbacks, from _PG_init */

#endif							/* ENT_STORE_HOOK_H */
