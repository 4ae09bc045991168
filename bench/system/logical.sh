# bench/system/logical.sh
#   PostgreSQL's built-in logical replication, default options.
#   shellcheck shell=bash

logical_attach() {
    on a -c "ALTER ROLE peer REPLICATION" \
        -c "GRANT SELECT ON item TO peer" \
        -c "CREATE PUBLICATION bench FOR TABLE item"
    on b -c "CREATE SUBSCRIPTION bench CONNECTION '$(to_a)'
        PUBLICATION bench" 2>/dev/null
}

logical_ready() {
    [ "$(on b -c "SELECT count(*) FROM pg_subscription_rel
        WHERE srsubstate <> 'r'")" = 0 ]
}

slots_dropped() {
    on a -c "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
            WHERE active" >/dev/null
    on a -c "SELECT pg_drop_replication_slot(slot_name)
        FROM pg_replication_slots WHERE NOT active" >/dev/null
    [ "$(on a -c 'SELECT count(*) FROM pg_replication_slots')" = 0 ]
}

# without the slot's help, which may be far behind
logical_detach() {
    on b -c "ALTER SUBSCRIPTION bench DISABLE" \
        -c "ALTER SUBSCRIPTION bench SET (slot_name = NONE)" \
        -c "DROP SUBSCRIPTION bench"
    until_true 60 slots_dropped
    on a -c "ALTER ROLE peer NOREPLICATION"
}
