/*
 * guard/filter.h
 *	  Filters that peers subscribe with: what of an expression may run here.
 *
 * A filter is text from a peer, an SQL expression over the columns of one
 * table. It is parsed, looked at, analysed as the peer's role, and looked at
 * again; what is run is not the text, but what the checked tree is written
 * out as. So nothing that is hidden in the text can matter.
 */
#ifndef ENT_GUARD_FILTER_H
#define ENT_GUARD_FILTER_H

#include "postgres.h"

#include "store/relinfo.h"

/*
 * The filter as SQL over a table called t, in the current context, to be run as the
 * role between ent_value_enter and ent_value_leave. In a transaction.
 * Raises ERRCODE_SYNTAX_ERROR; ERRCODE_UNDEFINED_COLUMN, in the same words
 * whether there is no such column or the role may not SELECT it;
 * ERRCODE_FEATURE_NOT_SUPPORTED with a detail for what is not allowed;
 * ERRCODE_STATEMENT_TOO_COMPLEX; and what PostgreSQL's analysis raises.
 */
extern char *ent_filter_sql(EntRelation *rel, Oid role, const char *text);

/*
 * The same, in a subtransaction: NULL and *error, in the current context, when it is
 * refused. Raised is only what says nothing of the filter (cancelled, no memory).
 */
extern char *ent_filter_try(EntRelation *rel, Oid role, const char *text,
							ErrorData **error);

/* Raises ERRCODE_SYNTAX_ERROR unless it is one expression. Needs no table. */
extern void ent_filter_check_syntax(const char *text);

#endif							/* ENT_GUARD_FILTER_H */
