#!/bin/busybox sh
# First process of the guest: load the few modules, mount the disk, hand over. Any fault ends the
# machine (the kernel is booted with panic=-1 and qemu with -no-reboot).
set -eu
/bin/busybox mkdir -p /proc /sys /dev /root
/bin/busybox mount -t proc none /proc
/bin/busybox mount -t sysfs none /sys
/bin/busybox mount -t devtmpfs none /dev
for module in $(/bin/busybox cat /modules/order); do
    /bin/busybox insmod "/modules/$module.ko"
done
tries=0
until [ -b /dev/vda ]; do
    tries=$((tries + 1))
    [ "$tries" -le 100 ] || exit 1
    /bin/busybox usleep 50000
done
/bin/busybox mount -t ext4 -o noatime /dev/vda /root
/bin/busybox mount --move /proc /root/proc
/bin/busybox mount --move /sys /root/sys
/bin/busybox mount --move /dev /root/dev
exec /bin/busybox switch_root /root /sbin/init
