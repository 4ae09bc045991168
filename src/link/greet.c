/*
 * link/greet.c
 *	  Is the node that said hello the peer we know?
 *
 * Place: link. PostgreSQL has authenticated the role (and the certificate
 * authority); here the role becomes a peer. Nothing a hello says gives more
 * rights than the role has: it only chooses among the peers of that role.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"

#include "base/cert.h"
#include "base/guc.h"
#include "base/report.h"
#include "base/shmem.h"
#include "link/greet.h"
#include "store/identity.h"
#include "store/value.h"

/* ---- is it the node? ---- */

static char *
uuid_text(const void *id)
{
	return DatumGetCString(DirectFunctionCall1(uuid_out,
											   PointerGetDatum(id)));
}

static bool
same_node(const pg_uuid_t *id, const EntWireHello *hello)
{
	return memcmp(id->data, hello->node.bytes, UUID_LEN) == 0;
}

static void
check_not_self(const EntWireHello *hello)
{
	if (same_node(&ent_identity_get()->id, hello))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("the node reached is this node itself"),
				 errdetail("Both ends of the connection are node %s.",
						   uuid_text(hello->node.bytes)),
				 errhint("Correct the peer's conninfo with entanglement.alter_peer. A physical copy of a node is the same node.")));
}

/* Who could be another peer's node as well would speak for its owners. */
static void
check_nobody_else(const EntPeer *peer, const EntWireHello *hello)
{
	ListCell   *lc;

	foreach(lc, ent_peer_all())
	{
		EntPeer    *p = lfirst(lc);

		if (p->no == peer->no || !p->has_node || !same_node(&p->node, hello))
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("peer \"%s\" says that it is a node that another peer is",
						peer->name),
				 errdetail("That is node %s.", uuid_text(hello->node.bytes)),
				 errhint("On the node that reports this, drop the peer that is not meant to be: entanglement.topology() shows who is that node.")));
	}
}

static void
check_node(const EntPeer *peer, const EntWireHello *hello)
{
	check_not_self(hello);
	if (peer->has_node && !same_node(&peer->node, hello))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("peer \"%s\" is another node than before", peer->name),
				 errdetail("It was node %s; now it is node %s (\"%s\").",
						   uuid_text(peer->node.data),
						   uuid_text(hello->node.bytes),
						   ent_name_from_wire(hello->name)),
				 errhint("If that is meant to be: SELECT entanglement.alter_peer(%s, reset => '{node}').",
						 quote_literal_cstr(peer->name))));
	if (!peer->has_node)
		check_nobody_else(peer, hello);
}

static void
check_certificate(const EntPeer *peer, const char *fingerprint)
{
	if (peer->fingerprint == NULL)
		return;
	if (fingerprint[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("peer \"%s\" has shown no certificate", peer->name),
				 errdetail("Its certificate is pinned to the SHA-256 fingerprint %s.",
						   peer->fingerprint),
				 errhint("To do without: SELECT entanglement.alter_peer(%s, reset => '{fingerprint}').",
						 quote_literal_cstr(peer->name))));
	if (strcmp(peer->fingerprint, fingerprint) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("peer \"%s\" has shown another certificate than before",
						peer->name),
				 errdetail("The pinned SHA-256 fingerprint is %s, the one shown has %s.",
						   peer->fingerprint, fingerprint),
				 errhint("If the certificate was renewed: SELECT entanglement.alter_peer(%s, fingerprint => '%s').",
						 quote_literal_cstr(peer->name), fingerprint)));
}

void
ent_greet_check(const EntPeer *peer, const EntWireHello *hello,
				const char *fingerprint)
{
	pg_uuid_t	node;

	if (fingerprint == NULL)
		fingerprint = "";
	check_node(peer, hello);
	check_certificate(peer, fingerprint);
	memcpy(node.data, hello->node.bytes, UUID_LEN);
	ent_peer_bind(peer->no, &node, fingerprint[0] ? fingerprint : NULL);
}

/* ---- who logged in? ---- */

static void
check_connection(void)
{
	if (!ent_cert_have_client())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("only a client connection can be a peer")));
	if (ent_require_tls && !ent_cert_client_is_safe())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("the connection is not encrypted"),
				 errdetail("The setting entanglement.require_tls is on: peers connect with TLS or over a Unix socket."),
				 errhint("Use sslmode=verify-full in the conninfo of the node that dials, and hostssl lines in this node's pg_hba.conf.")));
}

/*
 * Among the peers of the role: the one bound to this node, else the unbound
 * one of its name, else the only one that is unbound. One that has its name
 * or is the only one, but is bound to another node, is returned too, for
 * ent_greet_check to refuse it by name.
 */
static EntPeer *
choose(List *peers, Oid role, const EntWireHello *hello)
{
	const char *name = ent_name_from_wire(hello->name);
	EntPeer    *named = NULL;
	EntPeer    *unbound = NULL;
	EntPeer    *only = NULL;
	int			nunbound = 0;
	int			n = 0;
	ListCell   *lc;

	foreach(lc, peers)
	{
		EntPeer    *p = lfirst(lc);

		if (p->role != role)
			continue;
		if (p->has_node && same_node(&p->node, hello))
			return p;
		only = p;
		n++;
		if (strcmp(p->name, name) == 0)
			named = p;
		if (!p->has_node)
		{
			unbound = p;
			nunbound++;
		}
	}
	if (named != NULL)
		return named;
	if (nunbound == 1)
		return unbound;
	return n == 1 ? only : NULL;
}

static EntPeer *
identify(const EntWireHello *hello)
{
	Oid			role = GetSessionUserId();
	EntPeer    *peer = choose(ent_peer_all(), role, hello);

	if (peer == NULL)
	{
		const char *role_name = GetUserNameFromId(role, false);
		const char *node_name = ent_name_from_wire(hello->name);

		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("role \"%s\" does not stand for a peer named \"%s\" here",
						role_name, node_name),
				 errdetail("Node %s, \"%s\", has logged in as that role.",
						   uuid_text(hello->node.bytes), node_name),
				 errhint("On the node that reports this: SELECT entanglement.add_peer(%s, role => %s).",
						 quote_literal_cstr(node_name),
						 quote_literal_cstr(quote_identifier(role_name)))));
	}
	return peer;
}

/*
 * When both nodes dial each other, the link dialed by the node with the lower
 * id is the one to use, once it is up.
 */
static void
check_direction(const EntPeer *peer, const EntPeerSlot *slot,
				const EntWireHello *hello)
{
	if (slot->dialer.pid != 0 &&
		slot->state == ENT_LINK_CONNECTED &&
		slot->sender.pid == slot->dialer.pid &&
		memcmp(ent_identity_get()->id.data, hello->node.bytes, UUID_LEN) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("the link with peer \"%s\" is up already, dialed from the other side",
						peer->name)));
}

static void
check_caller(const EntPeer *peer, const EntPeerSlot *slot,
			 const EntWireHello *hello, bool link)
{
	char		fingerprint[ENT_FINGERPRINT_LENGTH + 1];

	if (peer->paused)
		ereport(ERROR,
				(errcode(ERRCODE_CANNOT_CONNECT_NOW),
				 errmsg("peer \"%s\" is paused", peer->name),
				 errhint("On the node that reports this: SELECT entanglement.resume_peer(%s).",
						 quote_literal_cstr(peer->name))));
	if (link)
		check_direction(peer, slot, hello);
	(void) ent_cert_of_client(fingerprint);
	ent_greet_check(peer, hello, fingerprint);
}

/*
 * Keeps the error being thrown where the administrator looks, if it is one
 * for an administrator. A link that works is none the worse for a stranger.
 */
static void
remember_refusal(EntPeerSlot *slot, MemoryContext context)
{
	ErrorData  *e;
	char	   *text;
	char	   *sqlstate;

	MemoryContextSwitchTo(context);
	e = CopyErrorData();
	if (e->sqlerrcode != ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION)
		return;
	text = ent_report_text(e->message, e->detail, e->hint);
	sqlstate = unpack_sql_state(e->sqlerrcode);
	if (slot->sender.pid != 0 || slot->receiver.pid != 0)
		ent_shmem_set_error(slot, sqlstate, text);
	else
		ent_shmem_set_state(slot, ENT_LINK_REFUSED, sqlstate, text);
}

static pg_noinline void
check_or_remember(const EntPeer *peer, EntPeerSlot *slot,
				  const EntWireHello *hello, bool link)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		check_caller(peer, slot, hello, link);
	}
	PG_CATCH();
	{
		remember_refusal(slot, context);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

EntPeer *
ent_greet_caller(const EntWireHello *hello, bool link)
{
	EntPeerSlot *slot;
	EntPeer    *peer;

	check_connection();
	check_not_self(hello);
	peer = identify(hello);
	slot = ent_shmem_peer(peer->no, true);
	if (slot == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many peers"),
				 errhint("On the node that reports this, increase \"entanglement.max_peers\" and restart the server.")));
	check_or_remember(peer, slot, hello, link);
	return peer;
}
