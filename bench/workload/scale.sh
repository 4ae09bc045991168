# bench/workload/scale.sh
#   Processor time of our processes on both sides for a change, with tables, owners and
#   tombstones of several numbers. It should not grow with any of them.
#   shellcheck shell=bash

scale_changes=10000

# scale_cost MEASURE ROWS: changes of rows side by side in the middle of the table, so
# that caches and full pages in the log are the same; a transaction each
scale_cost() {
    local measure=$1 rows=$2 script=$ENT_WORK/scale.sql before
    cat >"$script" <<'END_SQL'
\set n (:n + 1)
\set id :first + :client_id * :share + :n
UPDATE item SET x = x + 1, y = y + 1, updated_at = clock_timestamp() WHERE id = :id;
END_SQL
    drained
    before=$(scale_cpu)
    PGOPTIONS="-c synchronous_commit=off" load -c 2 -j 2 \
        -t $((scale_changes / 2)) -D n=0 -D share=$((scale_changes / 2)) \
        -D first=$(((rows - scale_changes) / 2)) -f "$script" >"$ENT_WORK/scale.log"
    drained
    result entanglement "$measure" us less \
        "$(calc "($(scale_cpu) - $before) * 1e6 / $(getconf CLK_TCK) / $scale_changes" 0)"
}

# clock ticks that our processes have used on both sides
scale_cpu() {
    local side pid
    for side in a b; do
        on "$side" -c "SELECT pid FROM pg_stat_activity
            WHERE backend_type LIKE 'entanglement%' OR usename = 'peer'"
    done | while read -r pid; do cat "/proc/$pid/stat"; done |
        awk '{ sub(/.*\) /, ""); ticks += $12 + $13 } END { print ticks }'
}

# until B has acknowledged all
drained() { [ "$(on a -c "SELECT entanglement.drain('b', '1 h')")" = t ]; }

scale_rows() {
    local rows
    for rows in $SCALE_ROWS; do
        make_item "$rows"
        attach entanglement 3600
        scale_cost "$rows rows" "$rows"
        clear_databases entanglement
        make_databases
    done
}

scale_owners() {
    local owners
    for owners in $SCALE_OWNERS; do
        make_item 0
        attach entanglement
        on a -c "SELECT count(entanglement.create_owner('owner' || i))
            FROM generate_series(1, $owners) i" >/dev/null
        on a -c "DO \$\$ BEGIN FOR i IN 1 .. $owners LOOP
            PERFORM set_config('entanglement.owner', 'owner' || i, true);
            INSERT INTO item (id, x, y) SELECT n, 0, 0
                FROM generate_series(i, $scale_changes, $owners) n;
            END LOOP; END \$\$"
        drained
        scale_cost "$owners owners" "$scale_changes"
        clear_databases entanglement
        make_databases
    done
}

scale_tombstones() {
    local dead
    for dead in $SCALE_TOMBSTONES; do
        make_item "$scale_changes"
        attach entanglement 3600
        # somebody who never comes keeps them
        on a -c "CREATE ROLE ghost" -c "GRANT SELECT ON item TO ghost" \
            -c "SELECT FROM entanglement.add_peer('ghost', role => 'ghost')"
        on a -c "INSERT INTO item (id) SELECT i + $scale_changes
            FROM generate_series(1, $dead) i"
        drained
        on a -c "DELETE FROM item WHERE id > $scale_changes"
        drained
        checkpoint
        [ "$(on a -c 'SELECT count(*) FROM entanglement.tombstone')" -ge "$dead" ]
        scale_cost "$dead tombstones" "$scale_changes"
        on a -c "SELECT FROM entanglement.drop_peer('ghost')" \
            -c "DROP OWNED BY ghost" -c "DROP ROLE ghost"
        clear_databases entanglement
        make_databases
    done
}

scale() { # SYSTEM
    local SCALE_ROWS=${SCALE_ROWS:-$(pick '10000 100000 1000000' '10000 100000')}
    local SCALE_OWNERS=${SCALE_OWNERS:-$(pick '1 100 10000' '1 1000')}
    local SCALE_TOMBSTONES=${SCALE_TOMBSTONES:-$(pick '0 1000000' '0 50000')}
    [ "$1" = entanglement ] || return 0
    scale_rows
    scale_owners
    scale_tombstones
}
