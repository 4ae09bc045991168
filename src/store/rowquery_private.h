/*
 * store/rowquery_private.h
 *	  Prepared statements on users' tables, for rowquery.c and rowset.c.
 */
#ifndef ENT_STORE_ROWQUERY_PRIVATE_H
#define ENT_STORE_ROWQUERY_PRIVATE_H

#include "postgres.h"

#include "executor/spi.h"
#include "lib/ilist.h"
#include "lib/stringinfo.h"
#include "utils/relcache.h"

#include "store/rowquery.h"

typedef enum EntStatementKind
{
	ENT_STATEMENT_LOOK,
	ENT_STATEMENT_LOCK_ROW,
	ENT_STATEMENT_READ,
	ENT_STATEMENT_UPDATE,
	ENT_STATEMENT_INSERT,
	ENT_STATEMENT_DELETE,
	ENT_STATEMENT_READ_SET,		/* of rowset.c: no arguments */
	ENT_STATEMENT_INSERT_SET
} EntStatementKind;

typedef struct EntStatement
{
	dlist_node	node;
	EntStatementKind kind;
	SPIPlanPtr	plan;			/* NULL: nothing to do (empty UPDATE) */
	int			nargs;			/* key first, then these columns */
	int		   *columns;		/* argument nkeys + i is column columns[i] */
	bool	   *set;			/* the set asked for, rel->ncolumns of them */
	char	   *filter;			/* ANDed to the key; NULL: none */
} EntStatement;

/*
 * Prepared for that set of columns and filter (NULL where they mean nothing). What a
 * statement of a set reads from has to be registered.
 */
extern EntStatement *ent_statement(EntRelation *rel, EntStatementKind kind,
								   const bool *set, const char *filter);

/* schema.operator of equality for a key column's type, as in the index. */
extern char *ent_statement_equality(Relation index, int keyno);
extern const char *ent_statement_table(EntRelation *rel);
extern const char *ent_statement_only(EntRelation *rel);

/* rowset.c */
extern void ent_rowset_append_read(StringInfo sql, EntRelation *rel,
								   EntStatement *st, const bool *set,
								   const char *filter);
extern void ent_rowset_append_insert(StringInfo sql, EntRelation *rel,
									 EntStatement *st, const bool *set);

#endif							/* ENT_STORE_ROWQUERY_PRIVATE_H */
