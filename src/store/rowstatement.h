/*
 * store/rowstatement.h
 *	  Statements on users' tables, as rowquery.c and rowset.c run them.
 */
#ifndef ENT_STORE_ROWSTATEMENT_H
#define ENT_STORE_ROWSTATEMENT_H

#include "postgres.h"

#include "executor/spi.h"
#include "lib/ilist.h"

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
	ENT_STATEMENT_INSERT_SET,
	ENT_STATEMENT_UPDATE_SET
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

/*
 * Can ENT_STATEMENT_UPDATE_SET be had for that set of columns? Not if there is nothing to
 * set, or what only a new row can have.
 */
extern bool ent_statement_updates_sets(EntRelation *rel, const bool *set);

/* Its name with its schema, quoted as necessary. */
extern const char *ent_statement_table(EntRelation *rel);

/*
 * What a statement of a set reads its rows from: their number n, their keys' columns k1,
 * k2, ... and by index of the column those that are given, c0, c1, ...
 */
#define ENT_ROWSET_NAME		"entanglement_rows"

#endif							/* ENT_STORE_ROWSTATEMENT_H */
