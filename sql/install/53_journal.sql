-- entanglement: states that peers will not receive.

CREATE VIEW entanglement.lost_states AS
SELECT r.relid AS relation,
    p.name AS peer,
    l.states,
    l.latest
FROM entanglement.journal_loss l
JOIN entanglement.relation r ON r.no OPERATOR(pg_catalog.=) l.rel
JOIN entanglement.peer p ON p.no OPERATOR(pg_catalog.=) l.peer;
REVOKE ALL ON entanglement.lost_states FROM PUBLIC;
GRANT SELECT ON entanglement.lost_states TO pg_monitor;
COMMENT ON VIEW entanglement.lost_states IS
'How many states of tables with every_state were given up before a peer had them, because of entanglement.journal_limit, and when last.';
