-- entanglement: the end of owners, and owners whose home is lost.

-- What is left of an owner: enough to tell those who have not heard, and to
-- know a stale offer of it when it comes around.
CREATE TABLE entanglement.grave (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    home uuid NOT NULL,
    epoch integer NOT NULL CHECK (epoch > 0),
    untold integer[] NOT NULL DEFAULT '{}',
    buried_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);
CREATE INDEX grave_untold ON entanglement.grave (buried_at) WHERE untold <> '{}';
REVOKE ALL ON entanglement.grave FROM PUBLIC;
COMMENT ON TABLE entanglement.grave IS
'Owners that are no more: home and epoch as they were last, and the peers that have not been told (again). A younger epoch, which only its home gives out, is a new life.';

CREATE FUNCTION entanglement.drop_owner(name text) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_drop_owner';
REVOKE ALL ON FUNCTION entanglement.drop_owner(text) FROM PUBLIC;
COMMENT ON FUNCTION entanglement.drop_owner(text) IS
'Ends an owner that is at home here (name or id; not the node''s default owner): its rows are deleted, as by the caller, here and then wherever they had spread, and it is forgotten. Locks all synchronized tables against writers and waits for the collector. 42704: no such owner; 42501: it is at home elsewhere, or a row may not be deleted; 55000: the default owner.';

CREATE FUNCTION entanglement.adopt(owner text, from_node uuid) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_adopt';
REVOKE ALL ON FUNCTION entanglement.adopt(text, uuid) FROM PUBLIC;
COMMENT ON FUNCTION entanglement.adopt(text, uuid) IS
'Makes this node the home of an owner (name or id) whose home is lost for good: from_node is the id of that home, as a fence against mistakes. Starts a new epoch; what this node holds of the owner is from now on all there is. 42704: no such owner; 22023: another node is its home; 55000: it is at home here, or its home is connected.';
