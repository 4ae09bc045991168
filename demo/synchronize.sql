-- The tables in step; pgbench_history has no key, and so stays at home.
SELECT FROM entanglement.synchronize('pgbench_accounts');
SELECT FROM entanglement.synchronize('pgbench_branches');
SELECT FROM entanglement.synchronize('pgbench_tellers');
SELECT FROM entanglement.synchronize('place');
