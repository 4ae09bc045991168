/*
 * store/query.h
 *	  Our own SQL: prepared once, run with the extension owner's rights.
 *
 * A query is a static struct with its text; the plan is prepared at first
 * use and kept for the life of the process. Running switches to the owner
 * of the extension's tables in a security-restricted context with search_path left alone (all names in texts are
 * schema-qualified, operators too), and back, also on error.
 */
#ifndef ENT_STORE_QUERY_H
#define ENT_STORE_QUERY_H

#include "postgres.h"

#include "executor/spi.h"
#include "utils/snapshot.h"

typedef struct EntQuery
{
	const char *text;			/* $n parameters, schema-qualified */
	int			nargs;
	Oid			types[16];
	SPIPlanPtr	plan;			/* filled at first use */
} EntQuery;

/*
 * Runs it; SPI must be connected. expected: SPI_OK_... or 0 for any.
 * Results in SPI_tuptable, SPI_processed; the current memory context stays
 * what it was. nulls as in SPI_execute_plan.
 * snapshot: NULL for a fresh one (read/write); else that one, read-only.
 */
extern void ent_query_run(EntQuery *query, Datum *args, const char *nulls,
						  int expected, Snapshot snapshot);

/*
 * Plans made between these two are generic, without compilation, and go by
 * index wherever one fits: our tables grow faster than they are analysed, and a plan made when a table
 * was empty must not become a sequential scan over millions. Restore also after errors.
 */
typedef struct EntPlanning
{
	bool		seqscan,
				hashjoin,
				mergejoin,
				jit;
	int			cache_mode;
} EntPlanning;

extern EntPlanning ent_query_plan_by_index(void);
extern void ent_query_plan_restore(const EntPlanning *saved);

/*
 * Runs fn(arg) as that role, or as the owner of the extension's tables, in a
 * security-restricted context; restores the user also on error.
 */
extern void ent_query_as(Oid role, void (*fn) (void *arg), void *arg);
/*
 * Until AtEOXact_GUC of what it returns: functions that users wrote without a
 * search_path of their own find what they find in an ordinary session of the role
 * they run as, not what the caller's session puts in front of it.
 */
extern int	ent_query_plain_path(void);

extern void ent_query_as_owner(void (*fn) (void *arg), void *arg);
extern Oid	ent_query_owner(void);

/*
 * Runs fn(arg) in a subtransaction. NULL: it went well; else all is undone, and
 * this is the error, in the current context.
 */
extern ErrorData *ent_query_try(void (*fn) (void *arg), void *arg);
/*
 * The same, but what says nothing of what was tried (cancelled, no memory, a
 * deadlock) is raised.
 */
extern ErrorData *ent_query_attempt(void (*fn) (void *arg), void *arg);

/* The same, and all is undone in any case: only what fn found out counts. */
extern ErrorData *ent_query_try_and_undo(void (*fn) (void *arg), void *arg);

/* Does this database have the extension (at this moment)? */
extern bool ent_query_installed(void);

/* Reading result columns (1-based) of row in SPI_tuptable. */
extern int32 ent_query_int4(uint64 row, int col, bool *isnull);
extern int64 ent_query_int8(uint64 row, int col, bool *isnull);
extern bool ent_query_bool(uint64 row, int col);
extern Datum ent_query_datum(uint64 row, int col, bool *isnull);
/* A copy of a text-like value in the current context, NULL when NULL. */
extern char *ent_query_text(uint64 row, int col);

/* One-dimensional arrays for unnest($1, ...). nulls may be NULL. */
extern Datum ent_query_array(Oid type, Datum *values, bool *nulls, int n);
/* Of text; NULL is NULL. */
extern Datum ent_query_text_array(char *const *texts, int n);

#endif							/* ENT_STORE_QUERY_H */
