/*
 * store/keytype_private.h
 *	  What the two files behind store/keytype.h share: keytype.c (all types,
 *	  and the way of the leaves), keynested.c (types made of others).
 */
#ifndef ENT_STORE_KEYTYPE_PRIVATE_H
#define ENT_STORE_KEYTYPE_PRIVATE_H

#include "postgres.h"

#include "access/tupdesc.h"
#include "fmgr.h"
#include "utils/typcache.h"

#include "store/keytype.h"

typedef enum EntKeyKind
{
	ENT_KIND_BYTE,				/* bool, "char" */
	ENT_KIND_INT2,
	ENT_KIND_INT4,				/* integers and what is stored as one */
	ENT_KIND_INT8,
	ENT_KIND_UUID,
	ENT_KIND_BYTES,
	ENT_KIND_TEXT,
	ENT_KIND_BPCHAR,
	ENT_KIND_NUMERIC,
	ENT_KIND_FLOAT4,
	ENT_KIND_FLOAT8,
	ENT_KIND_SEND,				/* whatever the send function says */
	ENT_KIND_ARRAY,
	ENT_KIND_RANGE,
	ENT_KIND_MULTIRANGE,
	ENT_KIND_ROW
} EntKeyKind;

struct EntKeyType
{
	EntKeyKind	kind;
	Oid			type;			/* below domains */
	Oid			domain;			/* the declared type, if it is a domain */
	void	   *domain_extra;
	int32		typmod;
	bool		exact;
	bool		textual;
	FmgrInfo	send;			/* leaves */
	FmgrInfo	receive;
	Oid			ioparam;
	MemoryContext context;
	/* of an array's element and of a range's and multirange's bounds */
	int16		typlen;
	bool		typbyval;
	char		typalign;
	TypeCacheEntry *cache;		/* of a range */
	TupleDesc	desc;			/* of a row */
	int			nparts;
	EntKeyType **parts;			/* NULL: dropped attribute */
};

/* keytype.c: raises what is said of malformed images. */
extern void ent_keytype_malformed(void);

/*
 * keynested.c: kinds from ENT_KIND_ARRAY on. false: the type is not made of
 * others, or one of those cannot be in a key.
 */
extern bool ent_keynested_prepare(EntKeyType *kt, Oid collation);
extern void ent_keynested_encode(EntKeyType *kt, Datum value, StringInfo out);
extern Datum ent_keynested_decode(EntKeyType *kt, const uint8 *data,
								  size_t len, bool foreign);

#endif							/* ENT_STORE_KEYTYPE_PRIVATE_H */
