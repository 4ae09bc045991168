# bench/system/pglogical.sh
#   pglogical 2 with its default options. Its user at the provider must be a
#   superuser.
#   shellcheck shell=bash

pglogical_attach() {
    on a -c "ALTER ROLE peer SUPERUSER" \
        -c "CREATE EXTENSION pglogical" \
        -c "SELECT FROM pglogical.create_node('a', '$(to_a)')" \
        -c "SELECT FROM pglogical.replication_set_add_table('default', 'item')"
    on b -c "CREATE EXTENSION pglogical" \
        -c "SELECT FROM pglogical.create_node('b', 'host=$ENT_WORK/b
            port=${PORT[b]} dbname=$BENCH_DB user=postgres')" \
        -c "SELECT FROM pglogical.create_subscription('bench', '$(to_a)')"
}

pglogical_ready() {
    [ "$(on b -c "SELECT count(*) FROM pglogical.local_sync_status
        WHERE sync_status <> 'r'")" = 0 ] &&
        [ "$(on b -c "SELECT status FROM
            pglogical.show_subscription_status()")" = replicating ]
}

pglogical_detach() {
    on b -c "SELECT pglogical.drop_subscription('bench')" ||
        on b -c "SELECT pglogical.alter_subscription_disable('bench', true)"
    on a -c "ALTER ROLE peer NOSUPERUSER"
    until_true 60 slots_dropped
}
