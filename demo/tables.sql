-- What each node of the demo holds besides pgbench's tables: places of the
-- world that drift. Variables: node.
CREATE EXTENSION entanglement;
SELECT FROM entanglement.set_node_name(:'node');

CREATE TABLE place (
    name text PRIMARY KEY,
    countries text NOT NULL,
    lat float8 NOT NULL,
    lon float8 NOT NULL,
    heading float4 NOT NULL DEFAULT 0,
    moved timestamptz NOT NULL DEFAULT now()
);
