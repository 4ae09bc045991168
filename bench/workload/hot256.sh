# bench/workload/hot256.sh
#   As hot, on a link of 256 kbit/s.
#   shellcheck shell=bash

. "$BENCH/workload/hot.sh"

hot256() { # SYSTEM
    LINK_RATE=32000 hot "$1"
}
