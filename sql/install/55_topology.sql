-- entanglement: who is where, and who says what he may not.

CREATE VIEW entanglement.violations AS
SELECT v.latest AS time,
    p.name AS peer,
    v.kind,
    o.name AS owner,
    r.relid AS relation,
    v.count
FROM entanglement.violation v
JOIN entanglement.peer p ON p.no OPERATOR(pg_catalog.=) v.peer
LEFT JOIN entanglement.owner o ON o.no OPERATOR(pg_catalog.=) v.owner
LEFT JOIN entanglement.relation r ON r.no OPERATOR(pg_catalog.=) v.rel;
REVOKE ALL ON entanglement.violations FROM PUBLIC;
GRANT SELECT ON entanglement.violations TO pg_monitor;
COMMENT ON VIEW entanglement.violations IS
'What peers sent or asked that they had no right to, and what hooks refused: latest time and count by peer, kind (home, local, speaker, epoch, write, request, ask, hook refused, hook failed), owner and table.';

CREATE FUNCTION entanglement.topology(
    OUT node uuid,
    OUT name text,
    OUT via text,
    OUT distance integer,
    OUT round_trip interval,
    OUT state text,
    OUT owners text[]
) RETURNS SETOF record
LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
WITH route AS (
    SELECT o.home, o.peer, o.name, o.local, o.distance,
        NOT o.lost AND s.state IS NOT DISTINCT FROM 'connected' AS up
    FROM entanglement.owner o
    LEFT JOIN entanglement.peer p ON p.no = o.peer
    LEFT JOIN entanglement.peers s ON s.name = p.name
), known AS (
    SELECT i.id AS node, i.name, NULL::text AS via, 0 AS distance,
        NULL::interval AS round_trip, 'here' AS state,
        ARRAY(SELECT r.name FROM route r WHERE r.local ORDER BY r.name COLLATE "C") AS owners
    FROM entanglement.identity i
    UNION ALL
    SELECT p.node, p.name, NULL, 1, CASE s.state WHEN 'connected' THEN s.round_trip END, s.state,
        ARRAY(SELECT r.name FROM route r WHERE r.peer = p.no AND r.home = p.node
            ORDER BY r.name COLLATE "C")
    FROM entanglement.peer p JOIN entanglement.peers s ON s.name = p.name
    UNION ALL
    SELECT r.home, (SELECT q.name FROM entanglement.peer q WHERE q.node = r.home),
        p.name, CASE WHEN p.name IS NOT NULL THEN min(r.distance) END, NULL, CASE WHEN bool_or(r.up) THEN 'reached' ELSE 'lost' END,
        array_agg(r.name ORDER BY r.name COLLATE "C")
    FROM route r LEFT JOIN entanglement.peer p ON p.no = r.peer
    WHERE NOT r.local AND p.node IS DISTINCT FROM r.home
    GROUP BY r.home, p.name
)
SELECT k.node, k.name, k.via, k.distance, k.round_trip, k.state, k.owners
FROM known k
ORDER BY k.distance, k.name COLLATE "C", k.node, k.via COLLATE "C"
$$;
REVOKE ALL ON FUNCTION entanglement.topology() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION entanglement.topology() TO pg_monitor;
COMMENT ON FUNCTION entanglement.topology() IS
'What this node knows of the network, a row per node and way to it: itself (distance 0), its peers (distance 1, with the state and round trip of the link), and homes of owners that are reached via a peer (state reached or lost). Names of nodes that are no peers are not known; owners are those at home there that come this way.';

CREATE FUNCTION entanglement.topology_dot() RETURNS text
LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
WITH known AS (
    SELECT t.*, COALESCE(t.node::text, t.name) AS id,
        NOT (t.state = ANY (ARRAY['here', 'connected', 'reached'])) AS down
    FROM entanglement.topology() t
), named AS (
    SELECT k.id, max(k.name) AS name, bool_or(k.distance = 0) AS here FROM known k GROUP BY k.id
), node AS (
    SELECT n.id, n.name, n.here,
        (SELECT string_agg(DISTINCT o.name, E'\n') FROM known k, unnest(k.owners) AS o (name)
            WHERE k.id = n.id AND o.name IS DISTINCT FROM n.name) AS owners
    FROM named n
), line (part, text) AS (
    SELECT 1, format(E'\t%s [label=%s%s];',
        to_json(n.id), to_json(concat_ws(E'\n', n.name, n.owners)),
        CASE WHEN n.here THEN ', style=bold' ELSE '' END)
    FROM node n
    UNION ALL
    SELECT 2, format(E'\t%s -- %s [label=%s%s];', to_json(i.id), to_json(k.id),
        to_json(CASE WHEN k.down THEN k.state
            ELSE COALESCE(round(extract(epoch FROM k.round_trip) * 1000, 1) || ' ms', '') END),
        CASE WHEN k.down THEN ', style=dashed' ELSE '' END)
    FROM known k, known i
    WHERE i.distance = 0 AND k.distance = 1 AND k.via IS NULL
    UNION ALL
    SELECT 3, format(E'\t%s -- %s [label=%s, style=%s];', to_json(p.id), to_json(k.id),
        to_json(CASE WHEN k.down THEN k.state
            WHEN k.distance = 2 THEN '' ELSE k.distance - 1 || ' links' END),
        CASE WHEN k.down THEN 'dashed' ELSE 'dotted' END)
    FROM known k JOIN known p ON p.name = k.via AND p.distance = 1 AND p.via IS NULL
)
SELECT E'graph entanglement {\n\tnode [shape=box];\n'
    || string_agg(l.text, E'\n' ORDER BY l.part, l.text COLLATE "C") || E'\n}\n'
FROM line l
$$;
REVOKE ALL ON FUNCTION entanglement.topology_dot() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION entanglement.topology_dot() TO pg_monitor;
COMMENT ON FUNCTION entanglement.topology_dot() IS
'The same as text for Graphviz: psql -XAtc "SELECT entanglement.topology_dot()" | dot -Tsvg. Links of this node are drawn with their round trip, ways beyond a peer dotted with their length, what is down dashed.';
