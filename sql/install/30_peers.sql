-- entanglement: peers.

CREATE FUNCTION entanglement.add_peer(
    name text,
    conninfo text DEFAULT NULL,
    role regrole DEFAULT NULL,
    bandwidth bigint DEFAULT NULL,
    privileged boolean DEFAULT false
) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_add_peer';
REVOKE ALL ON FUNCTION entanglement.add_peer(text, text, regrole, bigint, boolean) FROM PUBLIC;
COMMENT ON FUNCTION entanglement.add_peer(text, text, regrole, bigint, boolean) IS
'Makes another node known. conninfo: how to dial it, NULL when it dials us. role: whose rights it has here, and the role it logs in as when it dials; default: the current user. bandwidth: bytes per second that we may send to it. privileged: the role may be one with SUPERUSER, REPLICATION or BYPASSRLS. Takes effect at commit.';

CREATE FUNCTION entanglement.alter_peer(
    name text,
    conninfo text DEFAULT NULL,
    role regrole DEFAULT NULL,
    bandwidth bigint DEFAULT NULL,
    fingerprint text DEFAULT NULL,
    new_name text DEFAULT NULL,
    reset text[] DEFAULT NULL,
    privileged boolean DEFAULT false
) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_alter_peer';
REVOKE ALL ON FUNCTION entanglement.alter_peer(text, text, regrole, bigint, text, text, text[], boolean) FROM PUBLIC;
COMMENT ON FUNCTION entanglement.alter_peer(text, text, regrole, bigint, text, text, text[], boolean) IS
'Changes what is given, leaves what is NULL. fingerprint accepts a new certificate (SHA-256, hexadecimal). reset names properties to take away: conninfo (it dials us), bandwidth (no limit), fingerprint (pin the next certificate met), node (bind the next node met). privileged: as in add_peer, for a new role. Takes effect at commit.';

CREATE FUNCTION entanglement.drop_peer(name text) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_drop_peer';
REVOKE ALL ON FUNCTION entanglement.drop_peer(text) FROM PUBLIC;
COMMENT ON FUNCTION entanglement.drop_peer(text) IS
'Forgets a peer and ends its link. What came from it stays; its owners have no route until another peer advertises them. Takes effect at commit.';

CREATE FUNCTION entanglement.pause_peer(name text) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_pause_peer';
REVOKE ALL ON FUNCTION entanglement.pause_peer(text) FROM PUBLIC;
COMMENT ON FUNCTION entanglement.pause_peer(text) IS
'Ends a peer''s link until resume_peer; what changes meanwhile is sent then. Takes effect at commit.';

CREATE FUNCTION entanglement.resume_peer(name text) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_resume_peer';
REVOKE ALL ON FUNCTION entanglement.resume_peer(text) FROM PUBLIC;
COMMENT ON FUNCTION entanglement.resume_peer(text) IS
'Lets a paused peer''s link come up again. Takes effect at commit.';

CREATE FUNCTION entanglement.resync(peer text, owner text DEFAULT NULL) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_resync';
REVOKE ALL ON FUNCTION entanglement.resync(text, text) FROM PUBLIC;
COMMENT ON FUNCTION entanglement.resync(text, text) IS
'Has all that a peer and this node give each other, of one owner (name or id) or of all, compared and repaired while everything goes on, whatever was done to rows behind capture''s back. Objects of local owners whose rows are gone count as deleted. Rows that are no objects are removed when no owner is given, and become the owner''s when a local one is. Takes effect at commit, or when the link is up; progress: the view comparisons.';

CREATE FUNCTION entanglement.refresh(peer text) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_refresh';
REVOKE ALL ON FUNCTION entanglement.refresh(text) FROM PUBLIC;
COMMENT ON FUNCTION entanglement.refresh(text) IS
'Has what a peer may see looked at again, row by row, in all tables of which it is shown some rows: what it may see by now is sent, what it may not any more is withdrawn. Needed when row-level security depends on what is no policy, grant or membership, such as another table. Takes effect at commit.';

CREATE VIEW entanglement.comparisons AS
SELECT p.name AS peer, 'received'::text AS direction, o.name AS owner, r.relid AS relation, a.since
  FROM entanglement.arrears a
  JOIN entanglement.owner o ON o.no OPERATOR(pg_catalog.=) a.owner
  JOIN entanglement.relation r ON r.no OPERATOR(pg_catalog.=) a.rel
  LEFT JOIN entanglement.peer p ON p.no OPERATOR(pg_catalog.=) o.peer
UNION ALL
SELECT p.name, 'sent', o.name, r.relid, s.since
  FROM entanglement.resend s
  JOIN entanglement.owner o ON o.no OPERATOR(pg_catalog.=) s.owner
  JOIN entanglement.relation r ON r.no OPERATOR(pg_catalog.=) s.rel
  JOIN entanglement.peer p ON p.no OPERATOR(pg_catalog.=) s.peer;
REVOKE ALL ON entanglement.comparisons FROM PUBLIC;
GRANT SELECT ON entanglement.comparisons TO pg_monitor;
COMMENT ON VIEW entanglement.comparisons IS
'Tables of owners that are being sent or received as a whole, and not to the end yet: after resync, or because a table or column appeared here.';

CREATE FUNCTION entanglement.verify(
    peer text,
    OUT relation text,
    OUT owner text,
    OUT difference text,
    OUT lo jsonb,
    OUT hi jsonb,
    OUT ours bigint,
    OUT theirs bigint
) RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_verify';
REVOKE ALL ON FUNCTION entanglement.verify(text) FROM PUBLIC;
COMMENT ON FUNCTION entanglement.verify(text) IS
'Dials a peer and compares what both show each other, by digests; changes nothing. A row for each range of keys that differs: owner, what differs, first and last key, number of rows here and there. Columns that only one side shows, or of different types, are not compared. No rows: no difference.';
