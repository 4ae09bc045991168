# bench/workload/fanout.sh
#   One node and fifty that pull from it, each a database of its own on B; memory
#   of their links.
#   shellcheck shell=bash

fanout_peers=50 fanout_rows=1000

# each_peer PSQL-ARGUMENT...: for every database of a peer
each_peer() {
    local i
    for ((i = 1; i <= fanout_peers; i++)); do
        BENCH_DB=fan_$i on b "$@" || return 1
    done
}

fanout_make() {
    local i
    on a -c 'CREATE TABLE item (id int PRIMARY KEY, owner text, x float8, y float8,
            updated_at timestamptz)' \
        -c "INSERT INTO item SELECT i, 'a', 0, 0, clock_timestamp()
            FROM generate_series(1, $fanout_rows) i"
    for ((i = 1; i <= fanout_peers; i++)); do
        BENCH_DB=postgres on b -c "DROP DATABASE IF EXISTS fan_$i WITH (FORCE)" \
            -c "CREATE DATABASE fan_$i"
    done
    each_peer -c 'CREATE TABLE item (id int PRIMARY KEY, owner text, x float8,
        y float8, updated_at timestamptz)'
}

fanout_attach_entanglement() {
    local i way
    on a -c "CREATE EXTENSION entanglement" \
        -c "SELECT FROM entanglement.set_node_name('a')" \
        -c "SELECT FROM entanglement.synchronize('item')"
    for ((i = 1; i <= fanout_peers; i++)); do
        on a -c "CREATE ROLE peer_$i LOGIN" -c "GRANT SELECT ON item TO peer_$i" \
            -c "SELECT FROM entanglement.add_peer('b$i', role => 'peer_$i')"
        way="$(to_a) user=peer_$i"
        BENCH_DB=fan_$i on b -c "CREATE EXTENSION entanglement" \
            -c "SELECT FROM entanglement.set_node_name('b$i')" \
            -c "SELECT FROM entanglement.synchronize('item')" \
            -c "GRANT SELECT, INSERT, UPDATE, DELETE ON item TO peer" \
            -c "SELECT FROM entanglement.add_peer('a', '$way', 'peer')"
    done
}

fanout_attach_logical() {
    local i
    on a -c "ALTER ROLE peer REPLICATION" -c "GRANT SELECT ON item TO peer" \
        -c "CREATE PUBLICATION bench FOR TABLE item"
    for ((i = 1; i <= fanout_peers; i++)); do
        BENCH_DB=fan_$i on b -c "CREATE SUBSCRIPTION bench_$i
            CONNECTION '$(BENCH_DB=bench to_a)' PUBLICATION bench" 2>/dev/null
    done
}

fanout_equal() {
    local want
    want=$(digest a)
    [ -z "$(each_peer -c 'SELECT count(*), sum(hashtext(item::text)::bigint) FROM item' |
        grep -vxF "$want")" ]
}

links_of_a() {
    on a -c "SELECT pid FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND usename LIKE 'peer\\_%'"
}

fanout_memory() {
    local dialers idle before queued
    dialers=$(BENCH_DB=postgres on b -c "SELECT pid FROM pg_stat_activity
        WHERE backend_type LIKE 'entanglement dialer%'")
    # shellcheck disable=SC2046
    idle=$(private_kb $(links_of_a))
    result entanglement "idle link: end that is dialed" kB less \
        $((idle / fanout_peers))
    # shellcheck disable=SC2086
    result entanglement "idle link: end that dials" kB less \
        $(($(private_kb $dialers) / fanout_peers))
}

fanout() { # SYSTEM
    local began script=$ENT_WORK/fanout.sql i changes
    changes=$(pick 20000 4000)
    fanout_make
    "fanout_attach_$1"
    until_true 600 fanout_equal
    cat >"$script" <<'END_SQL'
\set n (:n + 1)
\set id 1 + mod(:n * 2 + :client_id, 1000)
UPDATE item SET x = x + 1, y = y + 1, updated_at = clock_timestamp() WHERE id = :id;
END_SQL
    sleep 2
    [ "$1" != entanglement ] || fanout_memory
    until_true 600 fanout_equal
    began=$(now)
    load -c 2 -j 2 -t $((changes / 2)) -D n=0 -f "$script" >"$ENT_WORK/fanout.log"
    until_true 600 fanout_equal
    result "$1" "$changes changes to $fanout_peers peers" s less \
        "$(since "$began")"
    if [ "$1" = entanglement ]; then
        each_peer -c "SELECT FROM entanglement.drop_peer('a')"
    else
        for ((i = 1; i <= fanout_peers; i++)); do
            BENCH_DB=fan_$i on b -c "ALTER SUBSCRIPTION bench_$i DISABLE" \
                -c "ALTER SUBSCRIPTION bench_$i SET (slot_name = NONE)" \
                -c "DROP SUBSCRIPTION bench_$i"
        done
        until_true 60 slots_dropped
        on a -c "ALTER ROLE peer NOREPLICATION"
    fi
    for ((i = 1; i <= fanout_peers; i++)); do
        BENCH_DB=postgres on b -c "DROP DATABASE fan_$i WITH (FORCE)"
    done
    [ "$1" != entanglement ] || for ((i = 1; i <= fanout_peers; i++)); do
        on a -c "SELECT FROM entanglement.drop_peer('b$i')" \
            -c "DROP OWNED BY peer_$i" -c "DROP ROLE peer_$i"
    done
}
