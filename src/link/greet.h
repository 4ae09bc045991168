/*
 * link/greet.h
 *	  Is the node that said hello the peer we know?
 *
 * Asked on both sides of a link: by the accepting node of who logged in, by
 * the dialer of what it reached. A peer is bound to the node id and to the
 * certificate met first; another one is refused until an administrator accepts it.
 */
#ifndef ENT_LINK_GREET_H
#define ENT_LINK_GREET_H

#include "postgres.h"

#include "rule/wire.h"
#include "store/peer.h"

/*
 * Checks a node against a peer and binds it at first contact. fingerprint:
 * of the certificate it showed, "" or NULL: none. In a transaction with SPI.
 * Raises ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION, with a hint for the administrator,
 * for another node, another certificate, or ourselves.
 */
extern void ent_greet_check(const EntPeer *peer, const EntWireHello *hello,
							const char *fingerprint);

/*
 * The peer that the client of this backend is, by its login role and its
 * hello; checked as above. Current context; in a transaction with SPI.
 * Raises, besides, ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION for a connection
 * that is neither TLS nor a Unix socket (unless entanglement.require_tls is off) and for a
 * role that stands for no peer, ERRCODE_CANNOT_CONNECT_NOW for a paused peer,
 * ERRCODE_OBJECT_IN_USE when the link that we dialed is to be used. What is refused is
 * remembered as the peer's last error. link: it wants to have a link with us, not only to ask.
 */
extern EntPeer *ent_greet_caller(const EntWireHello *hello, bool link);

#endif							/* ENT_LINK_GREET_H */
