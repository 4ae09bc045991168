# bench/workload/latency.sh
#   How long a commit on A takes to be visible on B, on an idle link without
#   delay.
#   shellcheck shell=bash

latency() { # SYSTEM
    local p50 p99
    make_item 10000
    attach "$1"
    lat() {
        ent_as_user "$ENT_WORK/tool/latency" \
            "host=$ENT_WORK/a port=${PORT[a]} dbname=$BENCH_DB user=postgres" \
            "host=$ENT_WORK/b port=${PORT[b]} dbname=$BENCH_DB user=postgres" \
            "$1"
    }
    lat 20 >/dev/null
    read -r p50 p99 _ <<<"$(lat "$(pick 1000 150)")"
    result "$1" p50 ms less "$p50"
    result "$1" p99 ms less "$p99"
}
