/*
 * store/relinfo.h
 *	  What we know of a synchronized table, cached.
 *
 * Everything a step needs to encode, decode, extract and apply rows of a
 * table: columns by attribute number, the key, type functions. Built from
 * entanglement.relation and the catalogs; dropped on relcache invalidation.
 */
#ifndef ENT_STORE_RELINFO_H
#define ENT_STORE_RELINFO_H

#include "postgres.h"

#include "access/attnum.h"
#include "fmgr.h"
#include "nodes/pg_list.h"

#include "rule/wire.h"

typedef struct EntColumn
{
	AttrNumber	attnum;			/* of the root table */
	char	   *name;			/* database encoding */
	Oid			type;			/* declared type */
	Oid			basetype;		/* below domains */
	int32		typmod;
	Oid			collation;
	int16		typlen;
	bool		typbyval;
	char		typalign;
	int			key;			/* 1-based position in the key, 0: not in it */
	struct EntKeyType *keytype; /* how it goes into the key image; NULL: not in
								 * the key */
	bool		in_key_only;	/* value is exactly what the key image says: not
								 * sent again as an ordinary column */
	bool		identity_always;	/* GENERATED ALWAYS AS IDENTITY: no UPDATE can
									 * set it */
	EntWireFormat format;		/* in which we send it */
	FmgrInfo	out;			/* send (binary) or output (text) function */
	FmgrInfo	in_text;		/* input function of the declared type */
	Oid			in_text_ioparam;
	FmgrInfo	in_binary;		/* receive function; fn_oid invalid: none */
	Oid			in_binary_ioparam;
} EntColumn;

/* Stored generated columns are not among the columns: computed locally. */
typedef struct EntRelation
{
	int32		no;				/* entanglement.relation.no */
	Oid			relid;			/* root table */
	char	   *schema;			/* database encoding */
	char	   *name;
	Oid			key_index;
	int			priority;
	bool		partitioned;
	bool		keys_from_others;	/* who asks for a new row may choose its key */
	bool		integrity;		/* its foreign keys hold here, too */
	bool		every_state;	/* no committed state is left out */
	bool		wal;			/* captured from the log */
	int			digested;		/* digests of all objects of ours are known up to
								 * this attribute number */
	bool		remote;			/* objects of remote owners have been in it; as of
								 * the last refresh, see ent_object_may_be_remote */
	AttrNumber	owner_column;	/* names the owner of a new row; 0: none */
	int			natts;			/* greatest attribute number */
	int			ncolumns;
	EntColumn  *columns;		/* by rising attribute number */
	int			nkeys;
	int		   *keys;			/* indexes into columns, in key order */
	uint64		generation;		/* grows with each rebuild of any table */
	MemoryContext context;		/* holds all of this */
	void	   *link_private;	/* unused by the store; NULL after a rebuild */
} EntRelation;

/*
 * Drops what has been invalidated. Call at the start of a tick or trigger
 * call chain, in a transaction, never while pointers are held across it.
 * Mappings and prepared statements kept elsewhere must be rebuilt when the
 * generation of what they belong to is another one.
 */
extern void ent_relinfo_refresh(void);

/* Grows, within this process, when a refresh finds any table changed. */
extern uint64 ent_relinfo_version(void);

/*
 * By number, oid of the root, or name (in the database encoding). NULL when
 * not synchronized (or dropped). Pointers are valid until the next refresh
 * in which something was invalidated. Needs a transaction.
 */
extern EntRelation *ent_relinfo_get(int32 no);
extern EntRelation *ent_relinfo_by_oid(Oid relid);
extern EntRelation *ent_relinfo_by_name(const char *schema, const char *name);
/*
 * A private copy in the current memory context that no refresh touches: for
 * triggers and functions, which may run while somebody up the stack holds
 * cached ones. Not for ent_rowquery_*. NULL as above.
 */
extern EntRelation *ent_relinfo_read(int32 no);
extern EntRelation *ent_relinfo_read_by_oid(Oid relid);
/* Is it cached here? Touches no catalog: for watchers. */
extern bool ent_relinfo_knows(Oid relid);
/* All synchronized tables: List of EntRelation *, in the current context. */
extern List *ent_relinfo_all(void);

/* To be called after entanglement.relation changed (every session learns). */
extern void ent_relinfo_invalidate(void);

/* Column by name, or NULL. */
extern EntColumn *ent_relinfo_column(EntRelation *rel, const char *name);

/*
 * Is equality of the type (with its default btree operator class and this
 * collation) the same as equality of canonical key images? If not, the type
 * cannot be in a key. Besides: its values mean the same in another database
 * (reg* do not).
 */
extern bool ent_relinfo_type_keyable(Oid type, Oid collation);

/*
 * The columns of an index: attribute numbers, operator classes, collations.
 * Arrays in the current context. false: there is no such index.
 */
typedef struct EntIndexKey
{
	Oid			relid;			/* its table */
	int			nkeys;			/* without INCLUDE columns */
	AttrNumber *attnums;		/* 0: an expression */
	Oid		   *opclasses;
	Oid		   *collations;
	bool		usable;			/* unique, immediate, valid, whole */
	bool		primary;
} EntIndexKey;

extern bool ent_relinfo_index_key(Oid index, EntIndexKey *key);

/* The index of that name in the table's schema, where its own are. */
extern Oid	ent_relinfo_index_named(Oid relid, const char *name);

/*
 * The index that the table's capture trigger depends on: the key, also after
 * REINDEX CONCURRENTLY gave it another oid. InvalidOid: none.
 */
extern Oid	ent_relinfo_protected_index(Oid relid);

/* Name of the trigger that captures a synchronized table's rows. */
#define ENT_CAPTURE_TRIGGER		"entanglement_capture"
/* ... of the one that makes requests of what is done to others' rows. */
#define ENT_REQUEST_TRIGGER		"entanglement_request"

extern void ent_relinfo_init(void); /* registers callbacks, from _PG_init */

#endif							/* ENT_STORE_RELINFO_H */
