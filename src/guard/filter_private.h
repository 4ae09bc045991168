/*
 * guard/filter_private.h
 *	  What the files of the filter check share: filter.c (the way of a filter),
 *	  filter_raw.c (before analysis), filter_tree.c (after it), filter_list.c
 *	  (types, operators and functions that are allowed).
 */
#ifndef ENT_GUARD_FILTER_PRIVATE_H
#define ENT_GUARD_FILTER_PRIVATE_H

#include "postgres.h"

#include "nodes/pg_list.h"
#include "nodes/primnodes.h"

#include "base/compat.h"
#include "store/relinfo.h"

#define ENT_FILTER_MAX_DEPTH	100 /* of nested expressions */
#define ENT_FILTER_MAX_SQL		65536	/* bytes of what is run */
#define ENT_FILTER_MAX_TYPMOD	1000	/* char(1000): values are padded up to it */
#define ENT_FILTER_MAX_NUMERIC	1000	/* digits of a constant: 1e100000 has many */

typedef struct EntFilterJob
{
	EntRelation *rel;
	Oid			role;
	const char *text;
	int			depth;
	List	   *bare;			/* of locations: columns in IS NULL, whose type
								 * does not matter */
	List	   *timely;			/* of locations: strings that may be the time */
} EntFilterJob;

/* A set of classes of types. 0: such values may only be compared with NULL. */
typedef enum EntFilterClass
{
	ENT_FILTER_BOOL = 0x0001,
	ENT_FILTER_INT = 0x0002,
	ENT_FILTER_FLOAT = 0x0004,
	ENT_FILTER_NUMERIC = 0x0008,
	ENT_FILTER_TEXT = 0x0010,
	ENT_FILTER_TIME = 0x0020,
	ENT_FILTER_NET = 0x0040,
	ENT_FILTER_GEO = 0x0080,
	ENT_FILTER_RANGE = 0x0100,	/* and multiranges */
	ENT_FILTER_ARRAY = 0x0200,
	ENT_FILTER_JSONB = 0x0400,
	ENT_FILTER_UUID = 0x0800,
	ENT_FILTER_ENUM = 0x1000,
	ENT_FILTER_OTHER = 0x2000,	/* bytea, bits, money, oid, pg_lsn */
} EntFilterClass;

/* ERRCODE_FEATURE_NOT_SUPPORTED with this detail. */
pg_noreturn extern void ent_filter_refuse(const char *format,...) pg_attribute_printf(1, 2);
/* Goes one level deeper; raises ERRCODE_STATEMENT_TOO_COMPLEX. */
extern void ent_filter_descend(EntFilterJob *job);

/* filter_raw.c */
/* The one expression that the text is. Raises ERRCODE_SYNTAX_ERROR. */
extern Node *ent_filter_parse(const char *text);
/* Is it safe to be analysed? Fills bare and timely. */
extern void ent_filter_gate(EntFilterJob *job, Node *raw);

/* filter_tree.c */
extern void ent_filter_check_tree(EntFilterJob *job, Node *tree);

/* filter_list.c */
extern int	ent_filter_class(Oid type);
/* May a constant of that type be the time at which it was read? */
extern bool ent_filter_tells_time(Oid type);
/* Raise what they refuse. right NULL: a prefix operator. */
extern void ent_filter_check_operator(Oid op, Node *left, Node *right);
/* Is a function of that name in the list? */
extern bool ent_filter_knows_function(const char *name);
extern void ent_filter_check_function(FuncExpr *f);
extern void ent_filter_check_io(Oid from, Oid to);

#endif							/* ENT_GUARD_FILTER_PRIVATE_H */
