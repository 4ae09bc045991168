-- entanglement: which rule decides.

CREATE FUNCTION entanglement.explain_send("row" record, peer text)
RETURNS TABLE (rule text, verdict text, detail text)
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_explain_send';
REVOKE ALL ON FUNCTION entanglement.explain_send(record, text) FROM PUBLIC;
COMMENT ON FUNCTION entanglement.explain_send(record, text) IS
'Is a row sent to a peer, and which rule says so? SELECT x.* FROM t, entanglement.explain_send(t, ''peer'') x WHERE .... A row for each rule in the order in which they are asked: yes, no or neutral; the last is the decision, which names the first that says no.';

CREATE FUNCTION entanglement.explain_listen(peer text, owner text, relation regclass,
    operation text, key jsonb, "values" jsonb DEFAULT NULL)
RETURNS TABLE (rule text, verdict text, detail text)
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_explain_listen';
REVOKE ALL ON FUNCTION entanglement.explain_listen(text, text, regclass, text, jsonb, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION entanglement.explain_listen(text, text, regclass, text, jsonb, jsonb) IS
'Would what a peer says of an owner (name or id) be stored, or, if he is at home here, done as it asks, and which rule says so? operation: insert, update or delete. Tries it as the peer''s role and undoes it, with ordinary triggers and foreign keys asleep. A row for each rule as explain_send gives them.';
