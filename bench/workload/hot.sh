# bench/workload/hot.sh
#   Age of what B shows while 100 rows change 50 times a second each and the
#   link carries 64 kbit/s with 100 ms delay. hot256: 256 kbit/s.
#   shellcheck shell=bash

hot_rows=100 hot_rate=50

# hot_ideal SENT: what a perfect sender could reach with our bytes per object,
# as they were in this run: the newest states, row by row in turn, without any
# queue. A state is shown from the delay on until the next one of its row comes,
# so its mean age is the delay and half a round of the rows. SENT: objects and
# bytes of batches before and after.
hot_ideal() {
    local turn
    turn=$(awk -v rate="$LINK_RATE" -v rows="$hot_rows" '{ print rows * ($4 - $2) / ($3 - $1) / rate }' <<<"$1")
    result entanglement "bytes per object" bytes less \
        "$(awk '{ printf "%.1f", ($4 - $2) / ($3 - $1) }' <<<"$1")"
    result ideal "mean age" s less "$(calc "$LINK_DELAY / 1000 + $turn / 2" 3)"
    result ideal "max age" s less "$(calc "$LINK_DELAY / 1000 + $turn" 3)"
}

hot_sent() {
    on a -F ' ' -c 'SELECT sum(objects_sent), sum(bytes_sent) FROM entanglement.peers'
}

# Looks at B every 100 ms; a line "time,mean,max" for each, in seconds.
hot_watch() { # SECONDS
    on b -c 'CREATE TEMP TABLE age (at float8, mean float8, max float8)' \
        -c "DO \$\$
        DECLARE began timestamptz := clock_timestamp();
        BEGIN
            WHILE clock_timestamp() < began + interval '$1 s' LOOP
                INSERT INTO age
                    SELECT extract(epoch FROM clock_timestamp() - began),
                        avg(extract(epoch FROM clock_timestamp() - updated_at)),
                        max(extract(epoch FROM clock_timestamp() - updated_at))
                    FROM item;
                COMMIT;
                PERFORM pg_sleep(0.1);
            END LOOP;
        END \$\$" \
        -c 'COPY (SELECT round(at::numeric, 2), round(mean::numeric, 3),
            round(max::numeric, 3) FROM age ORDER BY at) TO STDOUT (FORMAT csv)'
}

hot() { # SYSTEM
    local seconds script=$ENT_WORK/hot.sql ages=$ENT_WORK/$WORKLOAD-age-$1.csv
    local mean max writer sent=''
    seconds=${HOT_SECONDS:-$(pick 60 15)}
    make_item "$hot_rows"
    link narrow
    attach "$1"
    cat >"$script" <<'END'
\set n (:n + 1) % :half
\set id :client_id * :half + :n + 1
UPDATE item SET x = random() * 1000, y = random() * 1000, updated_at = clock_timestamp() WHERE id = :id;
END
    on a -c 'UPDATE item SET updated_at = clock_timestamp()'
    settled
    link rate "$LINK_RATE" "$LINK_DELAY"
    [ "$1" != entanglement ] || sent=$(hot_sent)
    PGOPTIONS="-c synchronous_commit=off" load -c 2 -j 2 -D n=0 \
        -D half=$((hot_rows / 2)) -R $((hot_rows * hot_rate)) \
        -T "$seconds" -f "$script" >"$ENT_WORK/hot.log" &
    writer=$!
    hot_watch "$seconds" >"$ages"
    wait "$writer"
    # the first five seconds are the path filling up, and becoming known
    read -r mean max <<<"$(awk -F , '$1 >= 5 { n++; sum += $2
        if ($3 > max) max = $3 } END { printf "%.3f %.3f", sum / n, max }' \
        "$ages")"
    result "$1" "mean age" s less "$mean"
    result "$1" "max age" s less "$max"
    [ "$1" != entanglement ] || hot_ideal "$sent $(hot_sent)"
}
