# Functions that scenarios share; `. /job/lib.sh` brings them in. Every shell
# of a guest understands them: busybox's and Debian's.

# A step that fails ends the script, and says where.
fail() {
    echo "FAILED: $*"
    exit 1
}

# Names what follows, with the guest's uptime, so that a slow step shows.
step() {
    read -r uptime _ </proc/uptime
    echo "-- $uptime s: $*"
}

# Both texts are the same.
same() {
    [ "$1" = "$2" ] || fail "$3: '$2' expected, not '$1'"
}
