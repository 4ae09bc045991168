/*
 * link/conninfo.h
 *	  How a peer is dialed: what the administrator wrote, and what we add.
 */
#ifndef ENT_LINK_CONNINFO_H
#define ENT_LINK_CONNINFO_H

#include "postgres.h"

/* For PQconnectStartParams; NULL-terminated, in the current context. */
typedef struct EntConninfo
{
	const char **keywords;
	const char **values;
} EntConninfo;

/*
 * Reads a conninfo and adds ours: TLS as safe as entanglement.require_tls demands, no
 * GSSAPI, keepalives, no timeouts of statements. Raises
 * ERRCODE_SYNTAX_ERROR when it cannot be parsed and
 * ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION when it asks for a plain TCP connection
 * although TLS is required. Messages contain nothing of the conninfo.
 */
extern EntConninfo *ent_conninfo_prepare(const char *conninfo,
										 const char *node_name);

#endif							/* ENT_LINK_CONNINFO_H */
