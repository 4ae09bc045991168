# bench/workload/copy.sh
#   Initial copy, from the first command until B holds all; without the link.
#   shellcheck shell=bash disable=SC2034

copy() { # SYSTEM
    local rows began seconds DIRECT=a
    rows=$(pick 1000000 20000)
    make_item "$rows"
    began=$(now)
    attach "$1" 1200
    seconds=$(since "$began")
    result "$1" "$rows rows" s less "$seconds"
}
