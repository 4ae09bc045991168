-- What is noted for a review stands in one order, by table and owner: links note
-- the same, and two who note it at a time must not wait for each other.
CREATE ROLE regress_entanglement_refresh LOGIN;
CREATE TABLE refresh_a (id int PRIMARY KEY);
CREATE TABLE refresh_b (id int PRIMARY KEY);
SELECT entanglement.synchronize('refresh_a'), entanglement.synchronize('refresh_b');
GRANT SELECT ON refresh_a, refresh_b TO regress_entanglement_refresh;
SELECT entanglement.create_owner('refresh') IS NOT NULL AS created;
SELECT entanglement.add_peer('refresh', role => 'regress_entanglement_refresh') IS NOT NULL AS added;

-- as if it had been shown some rows of both
INSERT INTO entanglement.shown (peer, rel, kind, target, digest)
SELECT p.no, r.no, 's', 's', 0 FROM entanglement.peer p, entanglement.relation r
 WHERE p.name = 'refresh' AND r.relid IN ('refresh_a'::regclass, 'refresh_b'::regclass)
 ORDER BY r.no DESC;
SELECT entanglement.refresh('refresh');
SELECT count(DISTINCT rel) AS tables, count(DISTINCT owner) > 1 AS owners,
	array_agg((rel, owner) ORDER BY s.ctid) = array_agg((rel, owner) ORDER BY rel, owner) AS in_order
  FROM entanglement.resend s JOIN entanglement.peer p ON p.no = s.peer WHERE p.name = 'refresh';

SELECT entanglement.drop_peer('refresh');
SELECT entanglement.drop_owner('refresh');
DROP TABLE refresh_a, refresh_b;
DROP ROLE regress_entanglement_refresh;
