#!/bin/busybox sh
# First process of a test guest. It mounts the share at /mnt, runs the script
# there, and reports on a serial line of its own, so that nothing the kernel
# prints can get in between:
#
#   MARKER ready
#   ... what the script prints ...
#   MARKER exit CODE
#
# /job/settings says what differs from run to run.

/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp
. /job/settings

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/shm
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp

# Stays open to the end: the line's settings last as long as somebody has it open.
exec 3>"$CHANNEL"
stty raw -echo <"$CHANNEL"

finish() {
    printf '\n%s exit %s\n' "$MARKER" "$1" >&3
    # Closing waits until everything has been sent.
    exec 3>&-
    sync
    poweroff -f
}

give_up() {
    echo "init: $1" >&3
    dmesg | tail -n 30 >&3
    finish 125
}

for module in $MODULES; do
    file=/lib/$module.ko
    if [ -f "$file" ]; then
        insmod "$file" || give_up "cannot load $module"
    fi
done

# Debian's files are read-only; what a script changes is in memory and goes
# with the guest.
if [ "$ROOT" = debian ]; then
    mkdir /lower /changes
    mount -t ext4 -o ro "$DISK" /lower || give_up "cannot mount $DISK"
    mount -t tmpfs tmpfs /changes
    mkdir /changes/upper /changes/work
    mount -t overlay -o lowerdir=/lower,upperdir=/changes/upper,workdir=/changes/work \
        overlay /newroot || give_up "cannot mount the overlay"
    for folder in proc sys dev dev/shm tmp; do
        mkdir -p "/newroot/$folder"
        mount -o bind "/$folder" "/newroot/$folder"
    done
    mkdir -p /newroot/mnt /newroot/job
    cp /job/* /newroot/job/
    base=/newroot
    # By its path: of a name, busybox would run a command of its own.
    enter="chroot /newroot /usr/bin/env PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root"
else
    base=
    enter=
fi

mount -t virtiofs "$TAG" "$base/mnt" || give_up "cannot mount the share $TAG"

if [ "$ATTENDED" = yes ]; then
    echo
    echo "The share is mounted at /mnt. Leave the shell to end the guest."
    # A terminal to control jobs with: the console itself is none.
    $enter setsid sh -c "cd /mnt && exec sh -i <$CONSOLE >$CONSOLE 2>&1"
    umount "$base/mnt"
    poweroff -f
fi

echo "$MARKER ready" >&3
$enter sh -c 'cd /mnt && exec sh /job/script' </dev/null >&3 2>&3
code=$?
# Ends the session: everything that the guest holds is released.
if ! umount "$base/mnt"; then
    echo "init: cannot unmount the share" >&3
    [ "$code" = 0 ] && code=124
fi
finish "$code"
