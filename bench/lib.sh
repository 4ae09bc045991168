# bench/lib.sh
#   What the workloads share: two clusters A and B on loopback, a link between
#   them, a database per measurement, results. To be sourced after
#   scripts/lib.sh, whose user and temporary folder it uses.
#   shellcheck shell=bash disable=SC2034,SC2154
#
#   A workload (workload/NAME.sh) is a function NAME, called with a system's
#   name for every measurement, which finds empty databases on both sides. It
#   may set NAME_also (systems measured besides, such as none) and NAME_rounds.
#
#   A system (system/NAME.sh) is three functions:
#     NAME_attach   table item is on both sides: replicate it from A to B
#     NAME_ready    whether it does, and B has what was there: status 0; costs little
#     NAME_detach   ends it; must work whatever happened before
#   B reaches A by the conninfo that the function to_a prints.

BENCH_DB=bench
LINK_RATE=8000 LINK_DELAY=100 # bytes per second, ms: 64 kbit/s

# ---- clusters ----------------------------------------------------------

free_port() { # PORT: the first one from there that nobody listens on
    local port=$1
    while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
        port=$((port + 1))
    done
    echo "$port"
}

# The one certificate of both servers and of their peer, who is named in it.
make_certificate() {
    ent_as_user openssl req -x509 -newkey ec -days 30 -nodes \
        -pkeyopt ec_paramgen_curve:prime256v1 -subj /CN=peer \
        -keyout "$ENT_WORK/peer.key" -out "$ENT_WORK/peer.crt" \
        >"$ENT_WORK/openssl.log" 2>&1 ||
        { cat "$ENT_WORK/openssl.log"; ent_die "openssl failed"; }
}

make_cluster() { # SIDE
    local side=$1 data=$ENT_WORK/$1/data preload=entanglement
    [ -z "$HAVE_PGLOGICAL" ] || preload=$preload,pglogical
    ent_as_user mkdir -m 700 "$ENT_WORK/$side"
    ent_as_user "$ENT_BINDIR/initdb" -D "$data" -U postgres -A trust -N \
        -E UTF8 --no-locale >"$ENT_WORK/$side.log" 2>&1 ||
        { cat "$ENT_WORK/$side.log"; ent_die "initdb failed"; }
    ent_as_user tee -a "$data/postgresql.conf" >/dev/null <<END
listen_addresses = '127.0.0.1'
port = ${PORT[$side]}
unix_socket_directories = '$ENT_WORK/$side'
ssl = on
ssl_ca_file = '$ENT_WORK/peer.crt'
ssl_cert_file = '$ENT_WORK/peer.crt'
ssl_key_file = '$ENT_WORK/peer.key'
shared_preload_libraries = '$preload'
wal_level = logical
track_commit_timestamp = on
shared_buffers = 256MB
max_wal_size = 8GB
checkpoint_timeout = 1h
max_connections = 250
max_worker_processes = 250
max_logical_replication_workers = 120
max_wal_senders = 120
max_replication_slots = 120
entanglement.max_peers = 200
# after a cut, the work is measured, not the pause between attempts
wal_retrieve_retry_interval = 200ms
entanglement.reconnect_max = 200ms
END
    # some minors load an output plugin only when a setting names it
    case $("$ENT_BINDIR/postgres" --describe-config 2>/dev/null) in
        *output_plugin_libraries*)
            ent_as_user tee -a "$data/postgresql.conf" >/dev/null \
                <<<"output_plugin_libraries = 'pgoutput, entanglement${HAVE_PGLOGICAL:+, pglogical_output}'"
            ;;
    esac
    # by TCP nobody but the peer comes in, and only with the certificate
    ent_as_user tee "$data/pg_hba.conf" >/dev/null <<END
local all all trust
local replication all trust
hostssl all all 127.0.0.1/32 cert map=peers
hostssl replication peer 127.0.0.1/32 cert
END
    # the certificate names peer; workloads with more than one call them peer_N
    { echo "peers peer peer"; printf 'peers peer peer_%d\n' {1..60}; } |
        ent_as_user tee "$data/pg_ident.conf" >/dev/null
    ent_as_user env ${FLUSH_US:+"FLUSH_US=$FLUSH_US" "LD_PRELOAD=$ENT_WORK/tool/flush.so"} \
        "$ENT_BINDIR/pg_ctl" start -s -w -D "$data" \
        -l "$ENT_WORK/$side/server.log" </dev/null >/dev/null 2>&1 ||
        { cat "$ENT_WORK/$side/server.log"; ent_die "$side does not start"; }
    BENCH_DB=postgres on "$side" -c "CREATE ROLE peer LOGIN"
}

make_clusters() {
    local jobs=() job
    HAVE_PGLOGICAL=''
    # not preloaded in vain: its supervisor holds up every DROP DATABASE
    case " ${SYSTEMS:-pglogical} " in
        *' pglogical '*)
            [ ! -f "$("$PG_CONFIG" --pkglibdir)/pglogical.so" ] ||
                HAVE_PGLOGICAL=1
            ;;
    esac
    declare -gA PORT
    PORT[a]=$(free_port $((20000 + RANDOM % 10000)))
    PORT[b]=$(free_port $((PORT[a] + 1)))
    make_certificate
    for job in a b; do
        make_cluster "$job" &
        jobs+=($!)
    done
    for job in "${jobs[@]}"; do wait "$job"; done
}

on() { # SIDE PSQL-ARGUMENT...
    local side=$1
    shift
    ent_as_user "$ENT_BINDIR/psql" -XAtq -v ON_ERROR_STOP=1 \
        -h "$ENT_WORK/$side" -p "${PORT[$side]}" -U postgres -d "$BENCH_DB" "$@"
}

# load PGBENCH-ARGUMENT...: pgbench on A, its report on standard output
load() {
    ent_as_user "$ENT_BINDIR/pgbench" -n -M prepared -h "$ENT_WORK/a" \
        -p "${PORT[a]}" -U postgres "$@" "$BENCH_DB" 2>&1
}

# How B reaches A: through the link, or directly when DIRECT is "a".
to_a() {
    echo "host=127.0.0.1 port=${PORT[${DIRECT:-link}]}" \
        "dbname=$BENCH_DB user=peer sslmode=require" \
        "sslcert=$ENT_WORK/peer.crt sslkey=$ENT_WORK/peer.key"
}

# ---- programs and link -------------------------------------------------

build_tools() {
    local tool
    mkdir "$ENT_WORK/tool"
    for tool in shaper latency; do
        gcc -O2 -Wall -Wextra -D_GNU_SOURCE -o "$ENT_WORK/tool/$tool" \
            -I"$("$PG_CONFIG" --includedir)" "$BENCH/tool/$tool.c" \
            -L"$("$PG_CONFIG" --libdir)" -lpq
    done
    gcc -O2 -Wall -Wextra -D_GNU_SOURCE -shared -fPIC -o "$ENT_WORK/tool/flush.so" \
        "$BENCH/tool/flush.c"
    chmod -R go+rX "$ENT_WORK/tool"
}

# The shaper ends when its standard input does.
start_link() {
    coproc SHAPER { ent_as_user "$ENT_WORK/tool/shaper" "${PORT[a]}"; }
    exec {LINK_OUT}<&"${SHAPER[0]}" {LINK_IN}>&"${SHAPER[1]}"
    read -r -t 10 -u "$LINK_OUT" "PORT[link]" ||
        ent_die "the link does not start"
}

link() { # COMMAND: see tool/shaper.c; prints the answer unless it is "done"
    local answer=''
    echo "$*" >&"$LINK_IN"
    read -r -t 10 -u "$LINK_OUT" answer || ent_die "the link does not obey"
    [ "$answer" = 'done' ] || echo "$answer"
}

# bytes that went through the link so far, both directions
link_bytes() {
    local there back
    read -r there back <<<"$(link count)"
    echo $((there + back))
}

# ---- databases ---------------------------------------------------------

make_databases() {
    local side
    for side in a b; do
        BENCH_DB=postgres on "$side" -c "CREATE DATABASE $BENCH_DB"
    done
}

# make_item ROWS: the table that most workloads use, filled on A. A row has
# about 270 bytes.
make_item() {
    local side
    for side in a b; do
        on "$side" -c 'CREATE TABLE item (id int PRIMARY KEY, owner text,
            x float8, y float8, heading real, status text, note text,
            updated_at timestamptz)'
    done
    on a -c "INSERT INTO item SELECT i, 'owner' || i % 100, random() * 1000,
            random() * 1000, random() * 360, 'active',
            (SELECT string_agg(md5(i || ' ' || k), '')
                FROM generate_series(1, 6) k), clock_timestamp()
        FROM generate_series(1, $1) i" -c 'VACUUM ANALYZE item'
    checkpoint
}

checkpoint() {
    on a -c CHECKPOINT
    on b -c CHECKPOINT
}

# attach SYSTEM: replicates item and waits until B holds all
attach() {
    [ "$1" != none ] || return 0
    "$1_attach"
    until_true "${2:-120}" "$1_ready"
    settled "${2:-300}"
}

until_true() { # SECONDS COMMAND...
    local deadline=$((SECONDS + $1))
    shift
    until "$@" 2>/dev/null; do
        [ "$SECONDS" -lt "$deadline" ] || { ent_warn "no end of: $*"; return 1; }
        sleep 0.02
    done
}

digest() { # SIDE
    on "$1" -c 'SELECT count(*), sum(hashtext(item::text)::bigint) FROM item'
}

# settled [SECONDS]: until item on B equals item on A. Looking takes at most a
# third of the time, so that it slows down little what it waits for.
settled() {
    local deadline=$((SECONDS + ${1:-120})) want began
    want=$(digest a)
    while :; do
        began=$(now)
        [ "$(digest b)" != "$want" ] || return 0
        [ "$SECONDS" -lt "$deadline" ] ||
            { ent_warn "B has not become equal to A"; return 1; }
        sleep "$(calc "2 * ($(now) - $began)")"
    done
}

# Leaves nothing of a measurement behind, whatever became of it.
clear_databases() { # SYSTEM
    local side
    link restore
    link rate 0 0
    link wide
    [ "$1" = none ] || "$1_detach" >>"$ENT_WORK/detach.log" 2>&1 || true
    for side in b a; do
        drop_database "$side"
    done
}

# pglogical 2.4's supervisor never tells that it holds none of the database's
# files, which DROP DATABASE waits for; it is ended. Only a new start of the server
# brings it back.
drop_database() { # SIDE
    local job ended=''
    BENCH_DB=postgres on "$1" -c "DROP DATABASE IF EXISTS $BENCH_DB WITH (FORCE)" &
    job=$!
    while [ -n "$HAVE_PGLOGICAL" ] && kill -0 "$job" 2>/dev/null; do
        BENCH_DB=postgres on "$1" -c "SELECT pg_terminate_backend(pid)
            FROM pg_stat_activity WHERE backend_type = 'pglogical supervisor'" >/dev/null
        ended=1
        sleep 0.5
    done
    wait "$job"
    [ -z "$ended" ] || ent_as_user "$ENT_BINDIR/pg_ctl" restart -s -w -m fast \
        -D "$ENT_WORK/$1/data" -l "$ENT_WORK/$1/server.log" </dev/null >/dev/null 2>&1
}

# bytes_per_change SYSTEM MEASURE SET [PGBENCH-ARGUMENT...]: bytes that cross
# the link, both directions, TLS included, for one change of a row of item, a
# transaction each, row by row. Records the result.
bytes_per_change() {
    local system=$1 measure=$2 script=$ENT_WORK/bytes.sql before changes=200
    cat >"$script" <<END
\\set n (:n + 1) % :rows
\\set id :n + 1 + :after
UPDATE item SET $3 WHERE id = :id;
END
    shift 3
    settled
    before=$(link_bytes)
    load -c 1 -t "$changes" -D n=0 -D rows=100 -D after=0 -f "$script" "$@" \
        >"$ENT_WORK/bytes.log"
    settled
    sleep 0.3 # the answers, too
    result "$system" "$measure" bytes less \
        $((($(link_bytes) - before) / changes))
}

# kB that belong to these processes alone
private_kb() { # PID...
    local pid
    for pid; do cat "/proc/$pid/smaps_rollup"; done |
        awk '/^Private_Dirty/ { kb += $2 } END { print kb + 0 }'
}

# ---- results -----------------------------------------------------------

# result SYSTEM MEASURE UNIT BETTER VALUE: BETTER is "less" or "more"
result() {
    echo "$WORKLOAD,$2,$3,$4,$1,$5" >>"$ENT_WORK/results.csv"
    ent_say "   $1: $2: $5 $3"
}

now() { date +%s.%N; }

# calc EXPRESSION [DIGITS]
calc() { awk "BEGIN { printf \"%.${2:-2}f\", $1 }"; }
since() { calc "$(now) - $1"; }
