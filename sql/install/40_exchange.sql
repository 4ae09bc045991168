-- entanglement: the exchange, called by peers. add_peer grants EXECUTE to the
-- peer's role.

CREATE FUNCTION entanglement.hello(direction text, hello bytea) RETURNS bytea
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_hello';
REVOKE ALL ON FUNCTION entanglement.hello(text, bytea) FROM PUBLIC;
COMMENT ON FUNCTION entanglement.hello(text, bytea) IS
'First call of a peer on each connection: it says who it is and whether it will push, pull or verify, and is told who we are. For nodes, not for people.';

CREATE FUNCTION entanglement.push(batch bytea) RETURNS bytea
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_push';
REVOKE ALL ON FUNCTION entanglement.push(bytea) FROM PUBLIC;
COMMENT ON FUNCTION entanglement.push(bytea) IS
'Applies a batch of the peer''s and returns the answer to it, valid when the transaction has committed. For nodes, not for people.';

CREATE PROCEDURE entanglement.pull(IN answer bytea, INOUT batch bytea DEFAULT NULL)
LANGUAGE c
AS 'MODULE_PATHNAME', 'ent_sql_pull';
REVOKE ALL ON PROCEDURE entanglement.pull(bytea, bytea) FROM PUBLIC;
COMMENT ON PROCEDURE entanglement.pull(bytea, bytea) IS
'Takes the peer''s answer to the last batch and returns the next one, as soon as there is something to say or a heartbeat is due. Waits outside any snapshot. For nodes, not for people.';

CREATE PROCEDURE entanglement.stream(direction text)
LANGUAGE c
AS 'MODULE_PATHNAME', 'ent_sql_stream';
REVOKE ALL ON PROCEDURE entanglement.stream(text) FROM PUBLIC;
COMMENT ON PROCEDURE entanglement.stream(text) IS
'Push or pull, whichever hello said, as a stream of messages in both directions (copy-both mode) that lasts as long as the link. Waits outside any snapshot. For nodes, not for people.';

CREATE FUNCTION entanglement.digest(question bytea) RETURNS bytea
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'ent_sql_digest';
REVOKE ALL ON FUNCTION entanglement.digest(bytea) FROM PUBLIC;
COMMENT ON FUNCTION entanglement.digest(bytea) IS
'Answers a peer that compares its rows with ours: how many of them its role may see, and their sums. For nodes, not for people.';
