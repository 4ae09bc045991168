# bench/workload/writer.sh
#   What a writer on A loses when a peer is attached, without the link, which would
#   take processor time that belongs to nobody.
#   shellcheck shell=bash disable=SC1091,SC2034

. "$BENCH/system/entanglement-wal.sh"

writer_also=none
case " $SYSTEMS " in
    *' entanglement-wal '*) ;;
    *) writer_also="none entanglement-wal" ;;
esac
writer_rounds=$(pick 3 1)

writer() { # SYSTEM
    local rows=10000 script=$ENT_WORK/writer.sql sync tps DIRECT=a
    make_item "$rows"
    attach "$1"
    cat >"$script" <<'END'
\set id random(1, :rows)
UPDATE item SET x = random() * 1000, y = random() * 1000, updated_at = clock_timestamp() WHERE id = :id;
END
    for sync in off on; do
        tps=$(PGOPTIONS="-c synchronous_commit=$sync" load -c 2 -j 2 \
            -T "$(pick 20 3)" -D rows=$rows -f "$script" |
            sed -n 's/^tps = \([0-9]*\).*/\1/p')
        result "$1" "synchronous_commit $sync" tps more "$tps"
        [ "$1" = none ] || settled
        checkpoint
    done
}
