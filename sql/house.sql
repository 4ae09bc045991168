-- The rules of the house for SQL objects: each is described, somebody decided
-- who may use it, and what runs with its owner's rights pins search_path.
-- Nothing below may list an offender; the last two lists are the whole of
-- what every user may call and read.
CREATE TEMP VIEW ours AS
    SELECT d.classid, d.objid,
           pg_catalog.pg_describe_object(d.classid, d.objid, 0) COLLATE "C" AS what
      FROM pg_catalog.pg_depend d
      JOIN pg_catalog.pg_extension e
        ON d.refclassid = 'pg_catalog.pg_extension'::regclass
       AND d.refobjid = e.oid AND d.deptype = 'e'
     WHERE e.extname = 'entanglement';

-- without a COMMENT (what belongs to another object, as a table's type and
-- the sequence of an identity column do, is described with it)
SELECT what FROM ours
 WHERE pg_catalog.obj_description(objid, classid::regclass::name) IS NULL
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend i
                    WHERE i.classid = ours.classid AND i.objid = ours.objid
                      AND i.deptype = 'i')
 ORDER BY what;
-- the schema is made by CREATE EXTENSION, and belongs to nothing
SELECT pg_catalog.obj_description('entanglement'::regnamespace, 'pg_namespace') IS NOT NULL;

-- outside the schema (event triggers are in none)
SELECT what FROM ours
 WHERE what !~ '\mentanglement(\M|_)'
   AND classid <> 'pg_catalog.pg_event_trigger'::regclass
 ORDER BY what;

-- functions whose EXECUTE was left to PUBLIC without a word
SELECT what FROM ours JOIN pg_catalog.pg_proc p ON p.oid = objid
 WHERE classid = 'pg_catalog.pg_proc'::regclass AND p.proacl IS NULL
 ORDER BY what;

-- functions with their owner's rights and a search_path that is not pinned
SELECT what FROM ours JOIN pg_catalog.pg_proc p ON p.oid = objid
 WHERE classid = 'pg_catalog.pg_proc'::regclass AND p.prosecdef
   AND NOT coalesce(p.proconfig @> ARRAY['search_path=pg_catalog, pg_temp'], false)
 ORDER BY what;

-- functions that take internal
SELECT what FROM ours JOIN pg_catalog.pg_proc p ON p.oid = objid
 WHERE classid = 'pg_catalog.pg_proc'::regclass
   AND 'pg_catalog.internal'::regtype = ANY (p.proargtypes)
 ORDER BY what;

-- tables and sequences open to PUBLIC
SELECT what FROM ours JOIN pg_catalog.pg_class c ON c.oid = objid,
       pg_catalog.aclexplode(c.relacl) a
 WHERE classid = 'pg_catalog.pg_class'::regclass
   AND c.relkind <> 'v' AND a.grantee = 0
 ORDER BY what;

-- what every user may call
SELECT what FROM ours JOIN pg_catalog.pg_proc p ON p.oid = objid,
       pg_catalog.aclexplode(coalesce(p.proacl,
           pg_catalog.acldefault('f', p.proowner))) a
 WHERE classid = 'pg_catalog.pg_proc'::regclass
   AND a.grantee = 0 AND a.privilege_type = 'EXECUTE'
 ORDER BY what;

-- what every user may read
SELECT what FROM ours JOIN pg_catalog.pg_class c ON c.oid = objid,
       pg_catalog.aclexplode(c.relacl) a
 WHERE classid = 'pg_catalog.pg_class'::regclass
   AND a.grantee = 0 AND a.privilege_type = 'SELECT'
 ORDER BY what;
