# The guest's clock jumps by decades, forwards and back, while the share is used. The host takes part by files: when
# there is `ask`, it changes `shared` to what stands there and then makes `done-` with the same behind it.
set -e
. /job/lib.sh

jump() {
    when=$1
    year=${when%%-*}
    step "the clock is set to $when"
    date -u -s "$when" >/dev/null
    same "$year" "$(date -u +%Y)" "the clock"
    # What was read and listed before the jump, once more.
    same "steady" "$(cat steady)" "contents"
    same 50 "$(ls listed | wc -l)" "a listing"
    # What is made and written by this clock.
    mkdir "in-$year"
    echo "$year" >"in-$year/file"
    echo again >>"in-$year/file"
    same "$year" "$(head -n 1 "in-$year/file")" "what was written"
    mv "in-$year/file" "in-$year/moved"
    [ ! -e "in-$year/file" ] || fail "the old name is there"
    # A time that is set stays as it was set.
    touch -d "$when" "in-$year/moved"
    same "$(date -u -d "$when" +%s)" "$(stat -c %Y "in-$year/moved")" "a time"
    # What the host changes is seen within seconds, by whatever clock.
    echo "$year" >ask.new
    mv ask.new ask
    tries=0
    while [ ! -e "done-$year" ] || [ "$(cat shared)" != "$year" ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 300 ] || fail "the host's change does not show"
        usleep 100000
    done
}

jump "2090-01-01 00:00:00"
jump "1980-02-29 12:00:00"
jump "2037-12-31 23:59:59"
jump "1971-01-01 00:00:01"
jump "2026-06-15 08:30:00"
