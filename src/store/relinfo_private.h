/*
 * store/relinfo_private.h
 *	  What the two files behind store/relinfo.h share: reading the catalogs
 *	  (relread.c) and caching (relinfo.c).
 */
#ifndef ENT_STORE_RELINFO_PRIVATE_H
#define ENT_STORE_RELINFO_PRIVATE_H

#include "postgres.h"

#include "store/relinfo.h"

/* Numbers of all rows of entanglement.relation, rising. */
extern List *ent_relinfo_numbers(void);

/* The number of that root table; 0: not synchronized. */
extern int32 ent_relinfo_number(Oid relid);

#endif							/* ENT_STORE_RELINFO_PRIVATE_H */
