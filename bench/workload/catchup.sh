# bench/workload/catchup.sh
#   The link is cut, 100 rows change many times, the link comes back: how long
#   until B is as A, and how many bytes that took.
#   shellcheck shell=bash

catchup() { # SYSTEM
    local updates script=$ENT_WORK/catchup.sql began before
    updates=$(pick 300000 60000)
    make_item 100
    attach "$1"
    cat >"$script" <<'END'
\set id random(1, 100)
UPDATE item SET x = random() * 1000, y = random() * 1000, updated_at = clock_timestamp() WHERE id = :id;
END
    link cut
    PGOPTIONS="-c synchronous_commit=off" load -c 2 -j 2 \
        -t $((updates / 2)) -f "$script" >"$ENT_WORK/catchup.log"
    before=$(link_bytes)
    began=$(now)
    link restore
    settled 600
    result "$1" "until equal" s less "$(since "$began")"
    result "$1" "through the link" bytes less $(($(link_bytes) - before))
}
