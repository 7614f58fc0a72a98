#!/bin/sh
# Makes the tree of one image with mmdebstrap. The caller runs it in a mount namespace of its own; here it
# gets a /dev of its own too, so that nothing that the build does can reach the host's.
#
# usage: build.sh WORK UID GID MMDEBSTRAP-ARGUMENT...
# WORK holds finish.sh and etc/; leaves WORK/rootfs (the tree) and WORK/packages (name, version).
set -eu
umask 022
work=$1
uid=$2
gid=$3
shift 3

mkdir "$work/dev"
mount -t tmpfs -o mode=755,nosuid dev "$work/dev"
while read -r name major minor; do
    mknod -m 666 "$work/dev/$name" c "$major" "$minor"
done <<'NODES'
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0
NODES
mkdir "$work/dev/pts" "$work/dev/shm"
ln -s /proc/self/fd "$work/dev/fd"
ln -s pts/ptmx "$work/dev/ptmx"
mount --move "$work/dev" /dev
mount -t devpts -o newinstance,ptmxmode=0666,nosuid,noexec devpts /dev/pts

# Dates in the packages' own files are cut to this one, so that the same packages give the same tree.
SOURCE_DATE_EPOCH=1700000000
export SOURCE_DATE_EPOCH
mmdebstrap "$@"

echo "I: finishing the tree" >&2
chroot "$work/rootfs" dpkg-query -W -f '${binary:Package}\t${Version}\n' > "$work/packages"
sh "$work/finish.sh" "$work/rootfs" "$uid" "$gid"
rm -f "$work/rootfs/etc/hostname" "$work/rootfs/etc/resolv.conf"
install -m 644 "$work"/etc/* "$work/rootfs/etc/"
