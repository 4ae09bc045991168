# bench/workload/memory.sh
#   What an object takes in the queue of a link that is as good as still.
#   shellcheck shell=bash

memory() { # SYSTEM
    local rows link before queued=0 last=-1
    [ "$1" = entanglement ] || return 0
    rows=$(pick 200000 50000)
    make_item "$rows"
    attach "$1"
    link=$(on a -c "SELECT pid FROM pg_stat_activity WHERE usename = 'peer'")
    link rate 1 0
    # shellcheck disable=SC2086
    before=$(private_kb $link)
    on a -c 'UPDATE item SET x = x + 1'
    while [ "$queued" -eq 0 ] || [ "$queued" -ne "$last" ]; do
        sleep 2
        last=$queued
        queued=$(on a -c 'SELECT queued FROM entanglement.peers')
    done
    # shellcheck disable=SC2086
    result "$1" "queued object" bytes less \
        $((($(private_kb $link) - before) * 1024 / queued))
    result "$1" "queued objects" objects more "$queued"
    link rate 0 0
}
