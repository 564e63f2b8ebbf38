# A database in rollback-journal mode and, where WAL says how, in WAL mode:
#   shared     several processes, over a mapped index
#   exclusive  one process that keeps the index to itself
#   refused    no mapping that is shared, so only exclusive works
set -e
. /job/lib.sh

ROWS=2000

fill() {
    echo "$1 CREATE TABLE t(id INTEGER PRIMARY KEY, text TEXT); CREATE INDEX i ON t(text);"
    echo "BEGIN;"
    perl -e 'printf "INSERT INTO t VALUES(%d, \"row %d %s\");\n", $_, $_, "x" x ($_ % 200)
        for 1 .. $ARGV[0]' $ROWS
    echo "COMMIT;"
    # Each a transaction, and so a journal, of its own.
    for id in 3 33 333; do
        echo "UPDATE t SET text = 'changed' WHERE id = $id;"
    done
    echo "BEGIN; DELETE FROM t; ROLLBACK;"
}

checked() {
    same "$(sqlite3 "$1" "$2 PRAGMA integrity_check;" | tail -n 1)" ok "integrity of $1"
    same "$(sqlite3 "$1" "$2 SELECT count(*) FROM t;" | tail -n 1)" "$3" "rows of $1"
}

for journal in DELETE TRUNCATE PERSIST; do
    step "journal mode $journal"
    fill "PRAGMA journal_mode=$journal;" | sqlite3 "$journal.db" >/dev/null
    checked "$journal.db" "" $ROWS
done

step "a transaction cut off by force is rolled back"
mkfifo /tmp/orders
sqlite3 DELETE.db </tmp/orders >/dev/null &
writer=$!
exec 4>/tmp/orders
# A small cache, so that changed pages are in the file and the journal is hot.
echo "PRAGMA cache_size=5; BEGIN; UPDATE t SET text = 'lost' || id;" >&4
tries=0
until [ -s DELETE.db-journal ]; do
    tries=$((tries + 1))
    [ $tries -lt 500 ] || fail "no journal appears"
    sleep 0.02
done
sleep 0.5
kill -KILL $writer
wait $writer || true
exec 4>&-
checked DELETE.db "" $ROWS
same "$(sqlite3 DELETE.db "SELECT count(*) FROM t WHERE text LIKE 'lost%'")" 0 "rows of a dead transaction"

EXCLUSIVE="PRAGMA locking_mode=EXCLUSIVE;"
if [ "$WAL" = shared ]; then
    step "WAL, two writers and a reader at once"
    fill "PRAGMA journal_mode=WAL;" | sqlite3 wal.db >/dev/null
    for writer in 1 2; do
        perl -e 'print ".timeout 60000\n"; printf "INSERT INTO t(text) VALUES(\"%s %d\");\n",
            $ARGV[0], $_ for 1 .. 100' $writer | sqlite3 wal.db &
    done
    for round in 1 2 3 4 5; do
        same "$(sqlite3 wal.db '.timeout 60000' 'PRAGMA integrity_check;')" ok "integrity while written"
    done
    wait
    same "$(sqlite3 wal.db 'PRAGMA journal_mode;')" wal "journal mode"
    checked wal.db "" $((ROWS + 200))
else
    if [ "$WAL" = refused ]; then
        step "WAL with a shared index is refused"
        mode=$(sqlite3 refused.db "PRAGMA journal_mode=WAL; CREATE TABLE t(a);" 2>&1) || true
        case "$mode" in
        wal) fail "WAL works: the index can be mapped" ;;
        esac
    fi
    step "WAL of one process"
    fill "$EXCLUSIVE PRAGMA journal_mode=WAL;" | sqlite3 wal.db >/dev/null
    checked wal.db "$EXCLUSIVE" $ROWS
fi
step "done"
