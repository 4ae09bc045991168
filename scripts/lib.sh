# scripts/lib.sh
#   Shared shell of everything in scripts/: packages, build, an unprivileged
#   user, temporary folders, clean-up. To be sourced by bash scripts that run
#   under "set -euo pipefail".
#   shellcheck shell=bash disable=SC2016,SC2034
#
#   Settings (environment):
#     PG_CONFIG      the PostgreSQL to build for; default: the newest with its
#                    development files installed, else the distribution's
#     ENT_JOBS       parallel compilations and TAP files; default: the number of
#                    processors, of TAP files at most two
#     ENT_BUILD_DIR  where objects are kept; default: build/ in the tree
#     ENT_RUN_USER   who runs servers when the caller is root; default: postgres
#     ENT_KEEP       set: leave temporary folders behind

ENT_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
ENT_BUILD_DIR=${ENT_BUILD_DIR:-$ENT_ROOT/build}
ENT_RUN_USER=${ENT_RUN_USER:-postgres}
ENT_JOBS=${ENT_JOBS:-$(nproc 2>/dev/null || echo 1)}

ent_say() { printf '%s\n' "$*"; }
ent_step() { printf '\n== %s\n' "$*"; }
ent_warn() { printf '%s\n' "$*" >&2; }
ent_die() {
    ent_warn "$(basename "$0"): $*"
    exit 1
}

# ---- clean-up ----------------------------------------------------------

# Commands run at exit, the last registered first, whatever ends the script.
# ent_on_exit 'command line'
ENT_CLEANUPS=()
declare -A ENT_CHILDREN=() # by process id
ent_on_exit() { ENT_CLEANUPS+=("$1"); }

ent_cleanup() {
    local status=$? i
    trap '' INT TERM HUP
    set +e
    for i in "${!ENT_CHILDREN[@]}"; do
        { kill "$i" && wait "$i"; } 2>/dev/null
    done
    for ((i = ${#ENT_CLEANUPS[@]} - 1; i >= 0; i--)); do
        eval "${ENT_CLEANUPS[$i]}"
    done
    exit "$status"
}
trap ent_cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# ---- who ---------------------------------------------------------------

# ent_as_root COMMAND...: with root's rights, through sudo where needed.
ent_as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        ent_die "root or sudo is needed for: $*"
    fi
}

# ent_as_user COMMAND...: as somebody PostgreSQL accepts to run as. That is
# the caller, or ENT_RUN_USER when the caller is root. The environment is
# kept; HOME is ENT_HOME when that is set (ent_workdir sets it).
ent_as_user() {
    ent_user_prefix
    "${ENT_AS[@]}" "$@"
}

# The same as words to put before a command, in the array ENT_AS.
ent_user_prefix() {
    ENT_AS=(env HOME="${ENT_HOME:-${HOME:-/}}")
    # like runuser, but without a process in between that holds signals up
    [ "$(id -u)" -ne 0 ] || ENT_AS+=(setpriv --reuid "$ENT_RUN_USER"
        --regid "$(id -g "$ENT_RUN_USER")" --init-groups --)
}

# ent_limited SECONDS LOG COMMAND...: as ent_as_user, all it says in the file
# LOG, but ended with all its children, TERM first, when it takes longer
# (status 124) or when the script itself is ended.
ent_limited() {
    ent_start_limited "$@"
    ent_await "$ENT_STARTED"
}

# ent_start_limited: the same, but does not wait; its id is in ENT_STARTED, and
# ent_await ID waits for it and returns its status.
ent_start_limited() {
    ent_user_prefix
    timeout --kill-after=30 "$1" "${ENT_AS[@]}" "${@:3}" </dev/null >"$2" 2>&1 &
    ENT_STARTED=$!
    ENT_CHILDREN[$ENT_STARTED]=1
}

ent_await() {
    local status=0
    wait "$1" || status=$?
    unset "ENT_CHILDREN[$1]"
    return "$status"
}

# ent_workdir: makes a temporary folder that belongs to the user of
# ent_as_user, names it in ENT_WORK, and removes it at exit. Its path is short,
# so sockets fit into it.
ent_workdir() {
    ENT_WORK=$(mktemp -d /tmp/entanglement-XXXXXX)
    ENT_HOME=$ENT_WORK
    chmod 755 "$ENT_WORK"
    if [ "$(id -u)" -eq 0 ]; then
        getent passwd "$ENT_RUN_USER" >/dev/null ||
            ent_die "there is no user \"$ENT_RUN_USER\" to run servers as"
        chown "$ENT_RUN_USER" "$ENT_WORK"
    fi
    if [ -n "${ENT_KEEP:-}" ]; then
        ent_on_exit 'ent_say "left behind: $ENT_WORK"'
    else
        ent_on_exit 'rm -rf "$ENT_WORK"'
    fi
    ent_on_exit 'ent_stop_servers "$ENT_WORK"'
}

# ent_stop_servers FOLDER: stops every server whose data directory lies below.
ent_stop_servers() {
    local pidfile
    [ -n "${ENT_BINDIR:-}" ] || return 0
    find "$1" -name postmaster.pid 2>/dev/null | while read -r pidfile; do
        ent_as_user "$ENT_BINDIR/pg_ctl" stop -s -w -m immediate \
            -D "$(dirname "$pidfile")" </dev/null >/dev/null 2>&1 || true
    done
}

# ---- what is missing ---------------------------------------------------

# ent_need_packages PACKAGE...: installs those that are not installed.
ent_need_packages() {
    local package log missing=()
    for package in "$@"; do
        case $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) in
            installed) ;;
            *) missing+=("$package") ;;
        esac
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    ent_step "installing ${missing[*]}"
    ent_apt_update
    # hundreds of lines, of use only when it fails
    log=$(mktemp)
    ent_on_exit "rm -f '$log'"
    ent_as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
        --no-install-recommends -o Dpkg::Use-Pty=0 "${missing[@]}" \
        </dev/null >"$log" 2>&1 ||
        { cat "$log"; ent_die "could not install ${missing[*]}"; }
    rm -f "$log"
}

ent_apt_update() {
    [ -z "${ENT_APT_UPDATED:-}" ] || return 0
    command -v apt-get >/dev/null ||
        ent_die "this needs Debian's apt, or everything in place already and PG_CONFIG set"
    ent_as_root apt-get update -qq
    ENT_APT_UPDATED=1
}

# True when a pg_config leads to everything an extension is built with.
ent_pg_config_complete() {
    local pgxs
    pgxs=$("$1" --pgxs 2>/dev/null) && [ -f "$pgxs" ] &&
        [ -x "$("$1" --bindir)/initdb" ] &&
        [ -f "$("$1" --includedir-server)/postgres.h" ]
}

# ent_prepare: installs what building and testing need, as far as it is
# missing, and sets PG_CONFIG, ENT_BINDIR and ENT_PGXS_TEST (the folder of
# PostgreSQL's own test tools).
ent_prepare() {
    local major wanted=()

    if [ -z "${PG_CONFIG:-}" ]; then
        PG_CONFIG=$(command -v pg_config || true)
        if [ -z "$PG_CONFIG" ] || ! ent_pg_config_complete "$PG_CONFIG"; then
            ent_apt_update
            # the distribution's major is what its metapackage depends on
            major=$(apt-cache depends postgresql |
                sed -n 's/^ *Depends: postgresql-\([0-9]\{1,\}\)$/\1/p' | head -n 1)
            [ -n "$major" ] || ent_die "apt knows no package postgresql"
            ent_need_packages "postgresql-$major" "postgresql-server-dev-$major"
            PG_CONFIG=/usr/lib/postgresql/$major/bin/pg_config
        fi
    fi
    ent_pg_config_complete "$PG_CONFIG" ||
        ent_die "$PG_CONFIG does not lead to a server with its development files (initdb, postgres.h, pgxs)"
    export PG_CONFIG
    ENT_BINDIR=$("$PG_CONFIG" --bindir)
    ENT_PGXS_TEST=$(cd "$(dirname "$("$PG_CONFIG" --pgxs)")/../test" && pwd)

    command -v make gcc nm >/dev/null && echo '#include <stdio.h>' |
        gcc -E - >/dev/null 2>&1 || wanted+=(build-essential)
    command -v clang >/dev/null || wanted+=(clang)
    command -v openssl >/dev/null || wanted+=(openssl)
    echo '#include <openssl/ssl.h>' | gcc -E - >/dev/null 2>&1 ||
        wanted+=(libssl-dev)
    echo '#include <zstd.h>' | gcc -E - >/dev/null 2>&1 ||
        wanted+=(libzstd-dev)
    [ -f "$("$PG_CONFIG" --includedir)/libpq-fe.h" ] || wanted+=(libpq-dev)
    command -v prove >/dev/null || wanted+=(perl)
    perl -MIPC::Run -e 1 2>/dev/null || wanted+=(libipc-run-perl)
    [ -f /usr/share/zoneinfo/zone1970.tab ] || wanted+=(tzdata)
    [ ${#wanted[@]} -eq 0 ] || ent_need_packages "${wanted[@]}"
}

# ---- building ----------------------------------------------------------

# ent_mirror FOLDER: makes FOLDER hold what a build needs, as the tree has it
# now, time stamps included; what has gone from the tree goes. A build there
# neither disturbs the tree nor is disturbed by who works in it.
ent_mirror() {
    local target=$1 list
    mkdir -p "$target"
    list=$(mktemp)
    (cd "$ENT_ROOT" && find Makefile META.json entanglement.control src worker sql \
        \( -name '*.[ch]' -o -name '*.control' -o -name Makefile -o \
        -name META.json -o -path 'sql/install/*.sql' -o \
        -name 'entanglement--*--*.sql' \) -type f | LC_ALL=C sort) >"$list"
    (cd "$ENT_ROOT" && xargs -a "$list" cp -p --parents -t "$target")
    (cd "$target" && find . -type f \( -name '*.[ch]' -o \
        -path './sql/install/*.sql' -o -name 'entanglement--*--*.sql' \) |
        sed 's,^\./,,' | LC_ALL=C sort | LC_ALL=C comm -13 "$list" - |
        xargs -r rm -f)
    rm -f "$list"
}

# ent_build NAME [MAKE ARGUMENT...]: builds the tree in ENT_BUILD_DIR/NAME.
# Two at once take turns.
ent_build() {
    local folder=$ENT_BUILD_DIR/$1
    shift
    mkdir -p "$folder"
    (
        flock 9
        ent_mirror "$folder"
        make -C "$folder" -s -j "$ENT_JOBS" --no-print-directory \
            PG_CONFIG="$PG_CONFIG" "$@" 9>&-
    ) 9>"$folder.lock"
}

# ent_install NAME: installs what ent_build NAME built into the server's
# directories.
ent_install() {
    local folder=$ENT_BUILD_DIR/$1 as=()
    [ -w "$("$PG_CONFIG" --pkglibdir)" ] || as=(ent_as_root)
    (
        flock 9
        "${as[@]}" make -C "$folder" -s --no-print-directory \
            PG_CONFIG="$PG_CONFIG" "${@:2}" install 9>&-
    ) 9>"$folder.lock"
}
