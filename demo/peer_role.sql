-- A role that stands for another node: what it may see and write here is
-- what that node may. Variables: peer, login (LOGIN or NOLOGIN).
CREATE ROLE :"peer" :login;
GRANT SELECT, INSERT, UPDATE, DELETE
    ON place, pgbench_accounts, pgbench_branches, pgbench_tellers TO :"peer";
