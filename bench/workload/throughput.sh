# bench/workload/throughput.sh
#   How fast B takes what waits for it. While the link is cut, every row changes
#   once: first in a transaction of its own, then all in one statement. Rows are
#   distinct, so nothing is saved by sending the newest state only.
#   shellcheck shell=bash

throughput() { # SYSTEM
    local rows script=$ENT_WORK/throughput.sql
    rows=$(pick 200000 20000)
    make_item "$rows"
    attach "$1"
    cat >"$script" <<'END_SQL'
\set n (:n + 1)
\set id :client_id * :share + :n
UPDATE item SET x = x + 1, y = y + 1, updated_at = clock_timestamp() WHERE id = :id;
END_SQL
    waiting() { # MEASURE COMMAND...: rows a second once the link is back
        local measure=$1 began
        shift
        link cut
        "$@" >"$ENT_WORK/throughput.log"
        began=$(now)
        link restore
        settled 600
        result "$SYSTEM" "$measure" rows/s more \
            "$(calc "$rows / ($(now) - $began)" 0)"
        checkpoint
    }
    local SYSTEM=$1
    export PGOPTIONS="-c synchronous_commit=off"
    waiting "a transaction each" load -c 2 -j 2 -t $((rows / 2)) \
        -D n=0 -D share=$((rows / 2)) -f "$script"
    waiting "in one statement" on a -c 'UPDATE item SET x = x + 1, y = y + 1,
        updated_at = clock_timestamp()'
}
