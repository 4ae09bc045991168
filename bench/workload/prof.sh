prof() {
    make_item 10000
    attach "$1"
    cat >"$ENT_WORK/p.sql" <<'END'
\set id random(1, 10000)
UPDATE item SET x = random() * 1000, y = random() * 1000, updated_at = clock_timestamp() WHERE id = :id;
END
    for side in a b; do on $side -c "select backend_type, pid, application_name, left(query,40) from pg_stat_activity where datname='$BENCH_DB'" ; done
    lat() {
        ent_as_user "$ENT_WORK/tool/latency" \
            "host=$ENT_WORK/a port=${PORT[a]} dbname=$BENCH_DB user=postgres" \
            "host=$ENT_WORK/b port=${PORT[b]} dbname=$BENCH_DB user=postgres" \
            "$1"
    }
    lat 20 >/dev/null
    perf record -a -g -F 5000 -o /tmp/perf.data -- sleep 6 >/dev/null 2>&1 &
    lat 1500
    wait $!
}
