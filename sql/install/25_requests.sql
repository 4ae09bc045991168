-- entanglement: changes asked of other nodes' owners.

CREATE TABLE entanglement.request (
    no bigint GENERATED ALWAYS AS IDENTITY,
    id uuid PRIMARY KEY,
    rel integer NOT NULL,
    owner integer NOT NULL,
    op "char" NOT NULL CHECK (op IN ('C', 'F', 'D')),
    key bytea,
    columns text[] NOT NULL,
    values text[] NOT NULL,
    state text NOT NULL CHECK (state IN ('waiting', 'sent', 'applied', 'accepted', 'refused', 'expired')),
    peers integer[] NOT NULL DEFAULT '{}',
    untold integer[] NOT NULL DEFAULT '{}',
    sent_to integer[] NOT NULL DEFAULT '{}',
    refused_by integer[] NOT NULL DEFAULT '{}',
    on_the_way boolean NOT NULL DEFAULT false,
    role regrole,
    carrier uuid,
    joint boolean NOT NULL DEFAULT false,
    alone boolean NOT NULL DEFAULT false,
    epoch integer,
    serial bigint,
    sqlstate text,
    message text,
    detail text,
    constraint_name text,
    made_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    decided_at timestamptz
);
CREATE INDEX request_open ON entanglement.request (no) WHERE state IN ('waiting', 'sent');
-- What is looked for from time to time: those that expire, or are old.
CREATE INDEX request_expires ON entanglement.request ((owner + 0), expires_at) WHERE state IN ('waiting', 'sent');
CREATE INDEX request_decided ON entanglement.request (expires_at, decided_at) WHERE decided_at IS NOT NULL;
CREATE INDEX request_applied ON entanglement.request (no) WHERE state = 'applied';
CREATE INDEX request_untold ON entanglement.request (no) WHERE decided_at IS NOT NULL AND untold <> '{}';
CREATE INDEX request_carrier ON entanglement.request (carrier) WHERE carrier IS NOT NULL;
REVOKE ALL ON entanglement.request FROM PUBLIC;
COMMENT ON TABLE entanglement.request IS
'Changes asked of remote owners here or passing through, and those asked of local ones. op: C create, F forward, D delete. role: who made it here, NULL: it came from peers, of which untold are to be told the answer. sent_to: peers it was sent to, of which refused_by refused it on the way. on_the_way: refused before it came to the owner''s home. carrier: the joint request that speaks for it. applied: done at the owner''s home, its serial to be given out by the next fold.';
COMMENT ON SEQUENCE entanglement.request_no_seq IS 'Order of requests.';

CREATE FUNCTION entanglement.request_trigger() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'ent_sql_request_trigger';
REVOKE ALL ON FUNCTION entanglement.request_trigger() FROM PUBLIC;
COMMENT ON FUNCTION entanglement.request_trigger() IS
'Turns what is done to a row of a remote owner into a request, and leaves the row as it is.';

CREATE FUNCTION entanglement.key_values(rel integer, key bytea) RETURNS text[]
LANGUAGE c STRICT STABLE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_key_values';
REVOKE ALL ON FUNCTION entanglement.key_values(integer, bytea) FROM PUBLIC;
COMMENT ON FUNCTION entanglement.key_values(integer, bytea) IS
'Names and values of a key image, in turn; for the view requests. NULL when the table is no longer synchronized.';

-- The columns and values of a request as people and programs read them.
CREATE FUNCTION entanglement.row_json(relation regclass, columns text[], "values" text[])
RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_object_agg(c.name,
        CASE
            WHEN c.value IS NULL THEN 'null'::jsonb
            WHEN t.typcategory = 'N' AND t.typtype = 'b' AND c.value ~ '^-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?$' THEN c.value::jsonb
            WHEN t.oid = 'bool'::regtype THEN to_jsonb(c.value::bool)
            WHEN t.oid IN ('json'::regtype, 'jsonb'::regtype) THEN c.value::jsonb
            ELSE to_jsonb(c.value)
        END), '{}')
      FROM unnest(columns, "values") AS c (name, value)
      LEFT JOIN pg_attribute a ON a.attrelid = relation AND a.attname = c.name
      LEFT JOIN pg_type t ON t.oid = a.atttypid
$$;
REVOKE ALL ON FUNCTION entanglement.row_json(regclass, text[], text[]) FROM PUBLIC;
COMMENT ON FUNCTION entanglement.row_json(regclass, text[], text[]) IS
'Columns of a table and their values'' text forms as a jsonb object; for the view requests.';

CREATE FUNCTION entanglement.request_key(rel integer, relation regclass, key bytea)
RETURNS jsonb LANGUAGE sql STABLE PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT entanglement.row_json(relation, array_agg(f.text ORDER BY f.n) FILTER (WHERE f.n % 2 = 1),
                                 array_agg(f.text ORDER BY f.n) FILTER (WHERE f.n % 2 = 0))
      FROM unnest(entanglement.key_values(rel, key)) WITH ORDINALITY AS f (text, n)
     HAVING count(*) > 0
$$;
REVOKE ALL ON FUNCTION entanglement.request_key(integer, regclass, bytea) FROM PUBLIC;
COMMENT ON FUNCTION entanglement.request_key(integer, regclass, bytea) IS
'A key image as a jsonb object; for the view requests.';

CREATE VIEW entanglement.requests AS
SELECT q.id, r.relid AS relation,
       entanglement.request_key(q.rel, r.relid, q.key) AS key,
       o.name AS owner,
       CASE q.op WHEN 'C' THEN 'create' WHEN 'F' THEN 'forward' ELSE 'delete' END AS operation,
       entanglement.row_json(r.relid, q.columns, q.values) AS changes,
       CASE q.state WHEN 'applied' THEN 'sent' ELSE q.state END AS state,
       q.sqlstate, q.message, q.detail, q.constraint_name, q.serial,
       (SELECT pg_catalog.string_agg(p.name, ', ' ORDER BY p.name)
          FROM entanglement.peer p WHERE p.no = ANY (q.peers)) AS peer,
       q.role, q.made_at, q.decided_at
  FROM entanglement.request q
  LEFT JOIN entanglement.relation r ON r.no = q.rel
  LEFT JOIN entanglement.owner o ON o.no = q.owner
 WHERE NOT q.joint
   AND CASE WHEN q.role IS NULL THEN pg_catalog.pg_has_role('pg_monitor', 'USAGE')
            ELSE pg_catalog.pg_has_role(q.role, 'USAGE') END;
GRANT SELECT ON entanglement.requests TO PUBLIC;
GRANT EXECUTE ON FUNCTION entanglement.request_key(integer, regclass, bytea) TO PUBLIC;
GRANT EXECUTE ON FUNCTION entanglement.row_json(regclass, text[], text[]) TO PUBLIC;
COMMENT ON VIEW entanglement.requests IS
'Requests made here by roles of the reader, and, for members of pg_monitor, those of peers (peer: it came from there) that pass through or were decided here.';

CREATE FUNCTION entanglement.last_request() RETURNS uuid
LANGUAGE c STRICT VOLATILE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'ent_sql_last_request';
REVOKE ALL ON FUNCTION entanglement.last_request() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION entanglement.last_request() TO PUBLIC;
COMMENT ON FUNCTION entanglement.last_request() IS
'Id of the latest request this session made and did not roll back; NULL: none.';

CREATE FUNCTION entanglement.wait_for(request uuid, timeout interval DEFAULT '30 s')
RETURNS text LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_wait_for';
REVOKE ALL ON FUNCTION entanglement.wait_for(uuid, interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION entanglement.wait_for(uuid, interval) TO PUBLIC;
COMMENT ON FUNCTION entanglement.wait_for(uuid, interval) IS
'Waits for the answer to a request made by a role of the caller: returns accepted, or raises the owner''s error under its own SQLSTATE, 57014 for one that expired, or 55P03 at the timeout, when the request stays.';

CREATE FUNCTION entanglement.cancel_request(request uuid) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_cancel_request';
REVOKE ALL ON FUNCTION entanglement.cancel_request(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION entanglement.cancel_request(uuid) TO PUBLIC;
COMMENT ON FUNCTION entanglement.cancel_request(uuid) IS
'Withdraws a request made by a role of the caller that has not left yet: true; false: it has left, its owner decides.';
