# bench/workload/hot.sh
#   Age of what B shows while 100 rows change 50 times a second each and the
#   link carries 64 kbit/s with 100 ms delay.
#   shellcheck shell=bash

hot_rows=100 hot_rate=50

# What a sender could reach that sends nothing but key (4 bytes) and the three
# changed values (8 each), the newest ones, row by row in turn, without any
# protocol: a version is under way for the delay and its own length, and is
# shown until the next one of its row comes.
hot_ideal() {
    local length turn start
    length=$(calc "28 / $LINK_RATE" 4)
    turn=$(calc "$hot_rows * $length" 4)
    start=$(calc "$LINK_DELAY / 1000 + $length + 0.5 / $hot_rate" 4)
    result ideal "mean age" s less "$(calc "$start + $turn / 2")"
    result ideal "max age" s less "$(calc "$start + $turn")"
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
    local seconds script=$ENT_WORK/hot.sql ages=$ENT_WORK/hot-age-$1.csv
    local mean max writer
    seconds=$(pick 60 10)
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
    PGOPTIONS="-c synchronous_commit=off" load -c 2 -j 2 -D n=0 \
        -D half=$((hot_rows / 2)) -R $((hot_rows * hot_rate)) \
        -T "$seconds" -f "$script" >"$ENT_WORK/hot.log" &
    writer=$!
    hot_watch "$seconds" >"$ages"
    wait "$writer"
    # the first two seconds are the path filling up
    read -r mean max <<<"$(awk -F , '$1 >= 2 { n++; sum += $2
        if ($3 > max) max = $3 } END { printf "%.3f %.3f", sum / n, max }' \
        "$ages")"
    result "$1" "mean age" s less "$mean"
    result "$1" "max age" s less "$max"
    case $SYSTEMS in "$1"*) hot_ideal ;; esac
}
