-- Promise: what users call and read keeps its name, its arguments in their
-- order, and its columns in theirs; more may follow at the end.
\pset format unaligned
\pset tuples_only on
SELECT p.proname || '(' || pg_catalog.pg_get_function_arguments(p.oid) || ')' ||
       coalesce(' RETURNS ' || pg_catalog.pg_get_function_result(p.oid), '')
  FROM pg_catalog.pg_proc p
 WHERE p.pronamespace = 'entanglement'::regnamespace
   AND p.proname IN ('set_node_name', 'create_owner', 'owner_of', 'synchronize',
       'set_capture', 'desynchronize', 'add_peer', 'alter_peer', 'drop_peer', 'pause_peer',
       'resume_peer', 'add_hook', 'remove_hook', 'explain_send', 'explain_listen', 'resync', 'refresh', 'verify', 'digest', 'drain', 'start_worker', 'hello', 'push', 'pull', 'stream',
       'last_request', 'wait_for', 'cancel_request', 'transfer', 'bind_owner',
       'subscribe', 'unsubscribe', 'check_filter', 'topology', 'topology_dot', 'drop_owner', 'adopt', 'become')
 ORDER BY p.proname COLLATE "C";
SELECT c.relname || ': ' || string_agg(a.attname || ' ' ||
           pg_catalog.format_type(a.atttypid, NULL), ', ' ORDER BY a.attnum)
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
 WHERE c.relnamespace = 'entanglement'::regnamespace AND c.relkind = 'v' AND a.attnum > 0
 GROUP BY c.relname ORDER BY c.relname COLLATE "C";
SELECT name FROM pg_catalog.pg_settings WHERE name LIKE 'entanglement.%' ORDER BY name COLLATE "C";
