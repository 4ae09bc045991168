/*
 * api/explain.h
 *	  What explain_send and explain_listen share: rules that are asked one after
 *	  the other, and the table of their answers.
 */
#ifndef ENT_API_EXPLAIN_H
#define ENT_API_EXPLAIN_H

#include "postgres.h"

#include "fmgr.h"
#include "nodes/execnodes.h"

#include "guard/hook.h"
#include "guard/show.h"
#include "step/decide.h"
#include "store/owner.h"
#include "store/peer.h"
#include "store/relinfo.h"

typedef enum EntVerdict
{
	ENT_VERDICT_NO = -1,
	ENT_VERDICT_NEUTRAL,
	ENT_VERDICT_YES
} EntVerdict;

typedef struct EntExplain
{
	ReturnSetInfo *rsinfo;
	MemoryContext context;		/* the call's */
	const char *rule;			/* being asked */
	char	   *refused_by;		/* the first that said no; NULL: none yet */
	EntPeer    *peer;
	EntRelation *rel;
	EntOwner   *owner;			/* NULL: the row is no object */
	bool	   *may;			/* by column: the role may SELECT it */
	bool		readable;		/* ... the key, and use the schema */
	EntShow		show;			/* explain_send */
	Datum		key[ENT_WIRE_MAX_KEYS];
	bool		visible;
	bool		wanted;
	EntHookRow	row;			/* if it is */
	/* explain_listen */
	EntAsked	asked;
	EntHookRow	old;			/* given: NULL when there is none to be seen */
} EntExplain;

typedef struct EntExplainRule
{
	const char *name;
	void		(*ask) (EntExplain *x);	/* says something, or nothing if it
										 * does not apply */
} EntExplainRule;

/*
 * Begins the result, and finds the peer, who is argument arg; raises
 * ERRCODE_UNDEFINED_OBJECT. SPI is connected then.
 */
extern void ent_explain_begin(EntExplain *x, FunctionCallInfo fcinfo, int arg);

/* Asks all rules in order, and decides. */
extern void ent_explain_ask(EntExplain *x, const EntExplainRule *rules, int n);

/* A line of the rule being asked. */
extern void ent_explain_say(EntExplain *x, EntVerdict verdict,
							const char *format,...) pg_attribute_printf(3, 4);

/* Rules of both. */
extern void ent_explain_link(EntExplain *x);
extern void ent_explain_schema(EntExplain *x);

/*
 * Names of the row-level security policies for that command ('r', 'a', 'w', 'd')
 * that apply to the peer's role; NULL: none is active for it.
 */
extern char *ent_explain_policies(EntExplain *x, char command);

/* For ent_hooks_tell, with x. */
extern void ent_explain_hook(void *x, const EntHook *hook, int answer,
							 const char *error);

#endif							/* ENT_API_EXPLAIN_H */
