/*
 * store/peer.h
 *	  entanglement.peer, read and written.
 */
#ifndef ENT_STORE_PEER_H
#define ENT_STORE_PEER_H

#include "postgres.h"

#include "nodes/pg_list.h"
#include "utils/uuid.h"

typedef struct EntPeer
{
	int32		no;
	char	   *name;
	char	   *conninfo;		/* NULL: it dials us. Secret. */
	Oid			role;
	int64		bandwidth;		/* bytes/s, 0: no limit */
	bool		paused;
	bool		has_node;
	pg_uuid_t	node;			/* known since the first hello */
	char	   *fingerprint;	/* NULL: not pinned yet */
} EntPeer;

/* Transaction and SPI; results in the caller's memory context. */
extern List *ent_peer_all(void);	/* of EntPeer * */
extern EntPeer *ent_peer_get(int32 no); /* NULL when gone */
extern EntPeer *ent_peer_by_name(const char *name);
/* As above, and keeps others from changing or dropping it until commit. */
extern EntPeer *ent_peer_lock(const char *name);
/*
 * Binds the node met in the first hello, pins the certificate (may be NULL).
 * Writes nothing when that is known already. Raises
 * ERRCODE_T_R_SERIALIZATION_FAILURE when another node was bound meanwhile.
 */
extern void ent_peer_bind(int32 no, const pg_uuid_t *node,
						  const char *fingerprint);

/*
 * insert gives peer->no; update writes every column of an existing peer. Both
 * raise ERRCODE_DUPLICATE_OBJECT when another peer has the name.
 */
extern void ent_peer_insert(EntPeer *peer);
extern void ent_peer_update(const EntPeer *peer);
/*
 * Removes the peer and all that is remembered of it; owners whose route it
 * was have none then.
 */
extern void ent_peer_delete(int32 no);
/*
 * To whom something is owed, as a table "creditor" of a query WITH RECURSIVE, with a NULL
 * at the end. Much may be owed: the index tells the next peer.
 */
#define ENT_PEER_CREDITORS \
	"creditor(no) AS (SELECT pg_catalog.min(peer) FROM entanglement.owed " \
	"UNION ALL SELECT (SELECT pg_catalog.min(d.peer) FROM entanglement.owed d " \
	"WHERE d.peer OPERATOR(pg_catalog.>) c.no) FROM creditor c WHERE c.no IS NOT NULL) "

/*
 * Tables of a query WITH RECURSIVE: "holder", whose that table's rows are, by an index that
 * begins with the expression, with a NULL at the end; "heard", of those who are known: epoch, and
 * the serial up to which all peers but the route have all of him in it. complete: each
 * of them has told what it has. OFFSET 0: by the whole key, also in a plan made while
 * there is nobody.
 */
#define ENT_PEER_HOLDERS(table, owner) \
	"holder(no) AS (SELECT pg_catalog.min(" owner ") FROM " table " t " \
	"UNION ALL SELECT (SELECT pg_catalog.min(" owner ") FROM " table " t " \
	"WHERE " owner " OPERATOR(pg_catalog.>) h.no) FROM holder h WHERE h.no IS NOT NULL) "
#define ENT_PEER_HEARD \
	"heard AS MATERIALIZED (SELECT o.no, o.epoch, " \
	"COALESCE(u.upto, 9223372036854775807) AS upto, COALESCE(u.complete, true) AS complete " \
	"FROM holder w JOIN entanglement.owner o ON o.no OPERATOR(pg_catalog.=) w.no, " \
	"LATERAL (SELECT pg_catalog.bool_and(h.peer IS NOT NULL) AS complete, " \
	"pg_catalog.min(CASE WHEN h.epoch OPERATOR(pg_catalog.=) o.epoch THEN h.have ELSE 0 END) AS upto " \
	"FROM entanglement.peer p LEFT JOIN LATERAL (SELECT * FROM entanglement.peer_owner h " \
	"WHERE h.peer OPERATOR(pg_catalog.=) p.no AND h.owner OPERATOR(pg_catalog.=) o.no " \
	"OFFSET 0) h ON true WHERE o.peer IS NULL OR p.no OPERATOR(pg_catalog.<>) o.peer) u) "

/*
 * The same for peers that are no more: what transactions that ran when they were
 * dropped wrote down for them.
 */
extern void ent_peer_sweep(void);

/*
 * Lets a role take part in the exchange: USAGE on the schema, EXECUTE on
 * hello, push and pull. revoke takes EXECUTE away again unless another peer
 * has that role.
 */
extern void ent_peer_grant(Oid role);
extern void ent_peer_revoke(Oid role);

#endif							/* ENT_STORE_PEER_H */
