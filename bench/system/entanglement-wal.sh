# bench/system/entanglement-wal.sh
#   As entanglement, with the changes of A captured from the log.
#   shellcheck shell=bash disable=SC1091

. "$BENCH/system/entanglement.sh"

entanglement-wal_attach() {
    entanglement_attach
    on a -c "SELECT FROM entanglement.set_capture('item', 'wal')"
}

entanglement-wal_ready() {
    entanglement_ready &&
        [ "$(on a -c 'SELECT wal FROM entanglement.relation')" = t ]
}

entanglement-wal_detach() { entanglement_detach; }
