-- Every table in step as its number of rows and the hash of its ordered rows.
SELECT 'pgbench_accounts', count(*), md5(string_agg(md5(t::text), '' ORDER BY aid)) FROM pgbench_accounts t
UNION ALL
SELECT 'pgbench_branches', count(*), md5(string_agg(md5(t::text), '' ORDER BY bid)) FROM pgbench_branches t
UNION ALL
SELECT 'pgbench_tellers', count(*), md5(string_agg(md5(t::text), '' ORDER BY tid)) FROM pgbench_tellers t
UNION ALL
SELECT 'place', count(*), md5(string_agg(md5(t::text), '' ORDER BY name COLLATE "C")) FROM place t
ORDER BY 1;
