-- entanglement: this node and its owners.

-- Without a look at the sequence: with wal_level minimal one that is used in the
-- transaction that makes it goes back in a crash.
WITH node AS (SELECT pg_catalog.gen_random_uuid() AS id),
     own AS (INSERT INTO entanglement.owner (no, id, name, local, home, initial)
             OVERRIDING SYSTEM VALUE
             SELECT 1, pg_catalog.gen_random_uuid(), pg_catalog.current_database(), true, id, true
               FROM node RETURNING no, name, home)
INSERT INTO entanglement.identity (id, name, default_owner)
SELECT home, name, no FROM own;

CREATE VIEW entanglement.node AS
SELECT i.id, i.name, o.name AS default_owner, '0.1.0'::text AS version,
       CASE WHEN i.used AND i.place OPERATOR(pg_catalog.<>) entanglement.place()
            THEN 'undecided' ELSE 'ready' END AS state
  FROM entanglement.identity i JOIN entanglement.owner o ON o.no = i.default_owner;
GRANT SELECT ON entanglement.node TO PUBLIC;
COMMENT ON VIEW entanglement.node IS
'This database as a node: id, name, name of the owner that new rows get by default, version of the extension; state is undecided in a copy that was not told what it is (entanglement.become).';

CREATE VIEW entanglement.owners AS
SELECT o.id, o.name, o.local, p.name AS peer, o.distance, o.epoch, o.serial,
       CASE WHEN o.local THEN NULL ELSE o.serial END AS have,
       CASE WHEN s.owner IS NOT NULL THEN ARRAY(
           SELECT q.name FROM entanglement.peer q WHERE q.no OPERATOR(pg_catalog.=) ANY (s.peers)
           ORDER BY q.name COLLATE "C") END AS speakers
  FROM entanglement.owner o LEFT JOIN entanglement.peer p ON p.no = o.peer
  LEFT JOIN entanglement.speaker s ON s.owner = o.no
 WHERE o.gone_as IS NULL;
GRANT SELECT ON entanglement.owners TO PUBLIC;
COMMENT ON VIEW entanglement.owners IS
'Owners of objects: peer is the route to a remote one, distance the number of links to its home, serial the newest given out or received, have what is complete here, speakers the peers it is pinned to (NULL: not pinned).';

CREATE FUNCTION entanglement.create_owner(name text, id uuid DEFAULT pg_catalog.gen_random_uuid())
RETURNS uuid LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_create_owner';
REVOKE ALL ON FUNCTION entanglement.create_owner(text, uuid) FROM PUBLIC;
COMMENT ON FUNCTION entanglement.create_owner(text, uuid) IS
'Makes a local owner of that name (1 to 63 bytes, unique among local owners) and returns its id. New rows belong to it while entanglement.owner names it.';

CREATE FUNCTION entanglement.set_node_name(name text) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_set_node_name';
REVOKE ALL ON FUNCTION entanglement.set_node_name(text) FROM PUBLIC;
COMMENT ON FUNCTION entanglement.set_node_name(text) IS
'Names this node (1 to 63 bytes); its default owner is renamed along while it carries the node''s name.';

CREATE FUNCTION entanglement.become(what text) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_become';
REVOKE ALL ON FUNCTION entanglement.become(text) FROM PUBLIC;
COMMENT ON FUNCTION entanglement.become(text) IS
'Says what this copy of a node (restored from a dump, or of a database copied) is: replacement, it takes the place of the old one, which is no more; new, a node of its own, which holds what the dump had of the old one''s owners. Until then it takes no part in the exchange. Superusers only. 55000: it is no copy; 22023: neither of the two.';

CREATE FUNCTION entanglement.bind_owner(owner text, VARIADIC peers text[] DEFAULT '{}')
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_bind_owner';
REVOKE ALL ON FUNCTION entanglement.bind_owner(text, text[]) FROM PUBLIC;
COMMENT ON FUNCTION entanglement.bind_owner(text, text[]) IS
'Pins an owner (name, a local one before remote ones, or id) to the peers that may speak for it; none: not pinned. A route through another peer ends. Takes effect at commit, on live links too.';
