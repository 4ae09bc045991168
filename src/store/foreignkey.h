/*
 * store/foreignkey.h
 *	  Foreign keys between synchronized tables that keep them (integrity).
 *
 * A table with integrity references none but tables with integrity; who
 * writes entanglement.relation or adds a foreign key sees to that
 * (ent_foreignkey_settle).
 */
#ifndef ENT_STORE_FOREIGNKEY_H
#define ENT_STORE_FOREIGNKEY_H

#include "postgres.h"

#include "access/attnum.h"
#include "nodes/pg_list.h"

typedef struct EntForeignKey
{
	Oid			oid;			/* of the constraint */
	NameData	name;
	/* the tables that it names, which may be partitions */
	Oid			child;
	Oid			parent;
	/* the tables above them that can be synchronized, and their numbers or 0 */
	Oid			child_root;
	Oid			parent_root;
	int32		child_rel;
	int32		parent_rel;
	bool		full;			/* MATCH FULL */
	bool		temporal;		/* with PERIOD: cannot be kept here */
	int			nkeys;
	AttrNumber	child_atts[INDEX_MAX_KEYS];
	AttrNumber	parent_atts[INDEX_MAX_KEYS];
	Oid			operators[INDEX_MAX_KEYS];	/* parent's value = child's value */
	Oid			parent_operators[INDEX_MAX_KEYS];	/* parent's = parent's */
	/* of ent_foreignkey_all only: */
	bool		by_key;			/* references nothing but key columns */
	int			parent_columns[INDEX_MAX_KEYS]; /* in the parent's EntRelation,
												 * -1: not there */
} EntForeignKey;

/*
 * Enforced foreign keys of all tables with integrity: List of
 * EntForeignKey *, sorted by child_rel and oid, valid until the next call.
 * Needs a transaction.
 */
extern List *ent_foreignkey_all(void);

/* A private copy of it, in the current context. */
extern List *ent_foreignkey_read_all(void);

/* Those of one table and its partitions, in the current context. */
extern List *ent_foreignkey_of(Oid root);

/*
 * Gives the tables with integrity whose priority the user left open the one
 * that their foreign keys ask for: what is referenced comes first. What such a
 * table references and is synchronized gets integrity too. Returns a foreign
 * key whose parent is not synchronized or that is temporal, else NULL. SPI
 * connected; locks entanglement.relation against other writers when something
 * changes.
 */
extern EntForeignKey *ent_foreignkey_settle(void);

extern void ent_foreignkey_init(void);	/* registers a callback, from _PG_init */

#endif							/* ENT_STORE_FOREIGNKEY_H */
