# bench/workload/body.sh
#   Bytes for a change of a counter beside an unchanged column of 100 kB.
#   shellcheck shell=bash

body() { # SYSTEM
    local side
    make_item 100
    for side in a b; do
        on "$side" -c 'ALTER TABLE item ADD body text, ADD n int DEFAULT 0'
    done
    # random: cannot be compressed, and lies out of the row; or all alike:
    # compressed in the row
    on a -c "UPDATE item SET body = CASE WHEN id <= 50 THEN
        (SELECT string_agg(md5(id || ' ' || k), '')
            FROM generate_series(1, 3125) k) ELSE repeat('x', 100000) END" \
        -c 'VACUUM FULL item'
    checkpoint
    attach "$1"
    bytes_per_change "$1" "100 kB out of the row" 'n = n + 1' -R 50 \
        -D rows=50
    bytes_per_change "$1" "100 kB compressed in it" 'n = n + 1' -R 50 \
        -D rows=50 -D after=50
}
