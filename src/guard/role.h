/*
 * guard/role.h
 *	  What a role is that stands for a peer, and which tables it can see.
 */
#ifndef ENT_GUARD_ROLE_H
#define ENT_GUARD_ROLE_H

#include "postgres.h"

#include "store/relinfo.h"

/*
 * Which of SUPERUSER, REPLICATION and BYPASSRLS a role has itself, as a list
 * in the current context; NULL: none, or there is no such role.
 */
extern char *ent_role_excess(Oid role);

/*
 * Other roles that it may become and that have one of these, or are predefined
 * ones that read or write all data or the server's files; NULL: none. SPI.
 */
extern char *ent_role_reach(Oid role);

/* Says so in the log if the role of a peer has more rights than it should. */
extern void ent_role_log_excess(Oid role, const char *peer);

/* What a role's rights let it see of a table. */
typedef struct EntRoleSight
{
	bool		usage;			/* of the schema */
	bool		keys;			/* SELECT on each column of the key */
	bool		columns;		/* SELECT on all columns */
	bool		rows;			/* no row-level security applies to it */
} EntRoleSight;

/* false: the table has gone. */
extern bool ent_role_sight(EntRelation *rel, Oid role, EntRoleSight *sight);

#endif							/* ENT_GUARD_ROLE_H */
