# Copies the folder `tree`, which the host made, and lists both as the guest sees them.
set -e
. /job/lib.sh

listing() {
    (cd "$1" && find . -printf '%P\t%y\t%m\t%U:%G\t%n\t%s\t%T@\t%l\n' |
        # The size of a directory is the store's own affair.
        awk -F '\t' -v OFS='\t' '$2 == "d" { $6 = "-" } { print }' | LC_ALL=C sort)
}

step "copy"
cp -a tree copy

step "compare contents"
diff -r --no-dereference tree copy || fail "contents differ"

step "list"
listing tree >/tmp/tree
listing copy >/tmp/copy
cmp /tmp/tree /tmp/copy || {
    diff /tmp/tree /tmp/copy | head -n 20
    fail "the copy's metadata differs"
}
cp /tmp/copy listing

step "once more, with what the guest knew forgotten"
echo 3 >/proc/sys/vm/drop_caches
listing copy | cmp - listing || fail "the listing changes"
step "done"
