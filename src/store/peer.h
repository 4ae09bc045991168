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
