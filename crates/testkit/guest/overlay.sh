# An overlay whose layers are all in $PLACE, as a container engine makes one for each image and container, mounted with
# $OPTIONS. Prints what it finds, the same wherever $PLACE is; then what the upper layers hold. Ends with 0 when every
# step did what it should.
set -eu
mount_overlay() { # LOWER UPPER
    mkdir -p "$PLACE/$2" "$PLACE/work-$2"
    mount -t overlay overlay -o "lowerdir=$1,upperdir=$PLACE/$2,workdir=$PLACE/work-$2$OPTIONS" "$MERGED"
}
list() { # Sizes and counts of links of directories are the store's own affair.
    (cd "$1" && find . -mindepth 1 ! -type d -printf '%P %y %m %U:%G %n %s %l\n' -o -type d -printf '%P %y %m %U:%G\n' |
        LC_ALL=C sort)
}
expect() { # WHAT IS
    [ "$1" = "$2" ] || { echo "FAILED: '$2', not '$1'"; exit 1; }
}
MERGED=$(mktemp -d)
trap 'umount "$MERGED" 2>/dev/null || :; rmdir "$MERGED"' EXIT

base=$PLACE/base
mkdir -p "$base/directory/below" "$base/opaque" "$base/moved"
for file in appended owned moded cut timed gone renamed recreated directory/below/deep opaque/hidden moved/file; do
    echo "base $file" >"$base/$file"
done
ln "$base/appended" "$base/linked"
ln -s appended "$base/symlink"
mkfifo "$base/fifo"
printf program >"$base/program"
chmod 4755 "$base/program"
head -c 300000 /dev/zero | tr '\0' x >"$base/large"

mount_overlay "$base" first
cd "$MERGED"
echo "== what is changed is copied up"
before=$(stat -c %i owned)
echo more >>appended
chown 7:8 owned
expect "$before" "$(stat -c %i owned)"
chmod 600 moded
truncate -s 5 cut
touch -d @1000000000 timed
chown -h 9:9 symlink 2>/dev/null && echo "a symlink changes its owner" || echo "a symlink keeps its owner"
chmod 700 directory
echo more >>directory/below/deep
chown 3:3 program
dd if=/dev/zero of=large bs=1 count=1 seek=200000 conv=notrunc 2>/dev/null
expect 300000 "$(stat -c %s large)"
expect "base timed" "$(cat timed)"

echo "== what is removed stays away"
rm gone recreated fifo
[ ! -e gone ]
echo new >recreated
mv renamed elsewhere
rm -r opaque
mkdir opaque
expect "" "$(ls opaque)"
mv moved moved-on
expect "base moved/file" "$(cat moved-on/file)"
[ ! -e moved ]
mkdir new
mkdir new/below
ln appended new/linked-here
mkfifo new/fifo
mknod new/device c 1 3
cp -a directory new/copy
rm -r new/below
list .
cd /
umount "$MERGED"

echo "== a second layer on top of both"
mount_overlay "$PLACE/first:$base" second
cd "$MERGED"
list .
expect "" "$(ls opaque)"
[ ! -e gone ]
echo back >gone
rm appended
rm -r new
mv elsewhere renamed
echo "base recreated" >recreated
for number in 1 2 3; do
    mkdir "many$number"
    cp -a directory large "many$number"
done
rm -r many1
list .
cd /
umount "$MERGED"
mount_overlay "$PLACE/first:$base" second
list "$MERGED"
umount "$MERGED"

for layer in first second; do
    echo "== layer $layer"
    (cd "$PLACE/$layer" && find . -type c -printf '%P %m ' -exec stat -c '%t:%T' '{}' ';' | LC_ALL=C sort)
    (cd "$PLACE/$layer" && find . ! -type c -printf '%P %y %m %U:%G\n' | LC_ALL=C sort)
done
