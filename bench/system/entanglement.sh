# bench/system/entanglement.sh
#   B dials A, as a subscriber of logical replication does.
#   shellcheck shell=bash

entanglement_attach() {
    on a -c "CREATE EXTENSION entanglement" \
        -c "GRANT SELECT ON item TO peer" \
        -c "SELECT FROM entanglement.set_node_name('a')" \
        -c "SELECT FROM entanglement.synchronize('item')" \
        -c "SELECT FROM entanglement.add_peer('b', role => 'peer')"
    on b -c "CREATE EXTENSION entanglement" \
        -c "GRANT SELECT, INSERT, UPDATE, DELETE ON item TO peer" \
        -c "SELECT FROM entanglement.set_node_name('b')" \
        -c "SELECT FROM entanglement.synchronize('item')" \
        -c "SELECT FROM entanglement.add_peer('a', '$(to_a)', 'peer')"
}

# with all that was there, as the others' subscriptions are when they say so
entanglement_ready() {
    [ "$(on b -c 'SELECT state FROM entanglement.peers')" = connected ] &&
        [ "$(on a -c "SELECT entanglement.drain('b', '1 s')")" = t ]
}

entanglement_detach() {
    on b -c "SELECT FROM entanglement.drop_peer('a')"
    on a -c "SELECT FROM entanglement.drop_peer('b')"
}
