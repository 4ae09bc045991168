-- entanglement: peers.

CREATE FUNCTION entanglement.add_peer(
    name text,
    conninfo text DEFAULT NULL,
    role regrole DEFAULT NULL,
    bandwidth bigint DEFAULT NULL
) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_add_peer';
REVOKE ALL ON FUNCTION entanglement.add_peer(text, text, regrole, bigint) FROM PUBLIC;
COMMENT ON FUNCTION entanglement.add_peer(text, text, regrole, bigint) IS
'Makes another node known. conninfo: how to dial it, NULL when it dials us. role: whose rights it has here, and the role it logs in as when it dials; default: the current user. bandwidth: bytes per second that we may send to it. Takes effect at commit.';

CREATE FUNCTION entanglement.alter_peer(
    name text,
    conninfo text DEFAULT NULL,
    role regrole DEFAULT NULL,
    bandwidth bigint DEFAULT NULL,
    fingerprint text DEFAULT NULL,
    new_name text DEFAULT NULL,
    reset text[] DEFAULT NULL
) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_alter_peer';
REVOKE ALL ON FUNCTION entanglement.alter_peer(text, text, regrole, bigint, text, text, text[]) FROM PUBLIC;
COMMENT ON FUNCTION entanglement.alter_peer(text, text, regrole, bigint, text, text, text[]) IS
'Changes what is given, leaves what is NULL. fingerprint accepts a new certificate (SHA-256, hexadecimal). reset names properties to take away: conninfo (it dials us), bandwidth (no limit), fingerprint (pin the next certificate met), node (bind the next node met). Takes effect at commit.';

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
