# A file of 5 GiB that is nearly all hole.
set -e
. /job/lib.sh

MIB=1048576

# The extents of data that the guest sees, as START-END in MiB.
extents() {
    perl -e '
        open my $file, "<", $ARGV[0] or die "open: $!";
        my ($at, @found) = (0);
        # 3 is SEEK_DATA, 4 is SEEK_HOLE (man 2 lseek).
        while (defined(my $start = sysseek $file, $at, 3)) {
            $at = sysseek $file, $start, 4 or die "no hole after $start: $!";
            push @found, int($start / 1048576) . "-" . int($at / 1048576);
        }
        print "@found";' "$1"
}

# What is data, where the guest can ask (SEEKS is yes); elsewhere it takes all for data.
has_data() {
    [ "$SEEKS" = yes ] || set -- 0-5120 "$2"
    same "$(extents sparse)" "$1" "$2"
}

write_at() {
    dd if=/tmp/block of=sparse bs=$MIB seek="$1" conv=notrunc status=none
}

perl -e 'print chr($_ * 7 % 251) x 4096 for 1 .. 256' >/tmp/block

step "write before and past 4 GiB"
truncate -s 5G sparse
write_at 1
write_at 4095
write_at 4096
write_at 5118
sync sparse
same "$(stat -c %s sparse)" 5368709120 "size"

step "holes"
has_data "1-2 4095-4097 5118-5119" "data"

step "read back, across 4 GiB, without what the guest cached"
echo 3 >/proc/sys/vm/drop_caches
for at in 1 4095 4096 5118; do
    dd if=sparse bs=$MIB skip=$at count=1 status=none | cmp - /tmp/block || fail "block $at"
done
dd if=sparse bs=$MIB skip=4094 count=1 status=none | cmp -n $MIB - /dev/zero || fail "a hole is not zero"

step "punch, one side of 4 GiB and then across it"
fallocate --punch-hole --offset $((4096 * MIB)) --length $MIB sparse
has_data "1-2 4095-4096 5118-5119" "data after punching one block"
fallocate --punch-hole --offset $((4095 * MIB + MIB / 2)) --length $MIB sparse
dd if=sparse bs=$((MIB / 2)) skip=$((2 * 4095)) count=1 status=none |
    cmp -n $((MIB / 2)) - /tmp/block || fail "the half that stays"
dd if=sparse bs=$((MIB / 2)) skip=$((2 * 4095 + 1)) count=1 status=none |
    cmp -n $((MIB / 2)) - /dev/zero || fail "the half that goes"

step "append past the end, cut short again"
write_at 5120
same "$(stat -c %s sparse)" $((5121 * MIB)) "size after appending"
truncate -s 5G sparse
same "$(stat -c %s sparse)" 5368709120 "size after cutting"
step "done"
