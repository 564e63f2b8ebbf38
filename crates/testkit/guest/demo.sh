# What `cargo xtask demo` shows, from the guest's side. Lines before the word
# between MARKS are shown as they are; the host checks what they say.
set -e
. /job/lib.sh

echo "Linux $(uname -r) has mounted: $(grep ' /mnt ' /proc/mounts)"
step "reads what the host wrote"
sed 's/^/      /' "$PLACE/from-host.txt"
same "$(md5sum <"$PLACE/from-host.txt" | cut -d ' ' -f 1)" "$MD5" "checksum of the host's file"

step "writes a file of 4 MiB and a text"
dd if=/dev/urandom of="$PLACE/data" bs=64k count=64 2>/dev/null
echo "Written in the guest, Linux $(uname -r)." >"$PLACE/from-guest.txt"
echo "      data has checksum $(md5sum <"$PLACE/data" | cut -d ' ' -f 1)"

step "makes a folder, a link and renames"
mkdir "$PLACE/folder"
mv "$PLACE/data" "$PLACE/folder/renamed"
ln -s folder/renamed "$PLACE/link"
same "$(wc -c <"$PLACE/link")" 4194304 "size through the link"

step "lists"
ls -l "$PLACE" | sed 's/^/      /'
