# Keeps both processors of the guest busy on the share, each with files of its
# own and with files of the other, then shows how often each queue called.
set -e
. /job/lib.sh

worker() {
    for round in $(seq 1 60); do
        echo "$1 $round" >"own-$1-$round"
        mv "own-$1-$round" "done-$1-$round"
        echo "$1 $round" >>"shared-$1"
        # What the other one does may be half done, but never wrong.
        cat "shared-$2" >/dev/null 2>&1 || true
        rm -f "gone-$1"
        echo x >"gone-$1"
    done
}

: >shared-0
: >shared-1
for cpu in 0 1; do
    (
        taskset -p $((1 << cpu)) "$(sh -c 'echo $PPID')" >/dev/null
        worker $cpu $((1 - cpu))
    ) &
    eval "worker$cpu=$!"
done
wait "$worker0" || fail "the worker on processor 0"
wait "$worker1" || fail "the worker on processor 1"
same "$(wc -l <shared-0)" 60 "lines of the first"
same "$(wc -l <shared-1)" 60 "lines of the second"
same "$(ls done-* | wc -l)" 120 "files"
grep -- '-requests' /proc/interrupts
