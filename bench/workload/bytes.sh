# bench/workload/bytes.sh
#   Bytes for a change of three small columns of a row of eight.
#   shellcheck shell=bash

bytes() { # SYSTEM
    local set='x = random(), y = random(), updated_at = clock_timestamp()'
    make_item 100
    attach "$1"
    bytes_per_change "$1" "3 of 8 columns at 50/s" "$set" -R 50
    bytes_per_change "$1" "3 of 8 columns at once" "$set"
}
