#!/bin/sh
# Turns a fresh package tree into the root of a sandbox: nothing set-id, no device, nothing of the build
# machine, root owns everything but the user's own directories. $1 is the tree, $2:$3 the user.
set -eu
root=$1
uid=$2
gid=$3

# Whatever was mounted or made there during the build goes; the sandbox gets its own.
for name in dev proc sys run; do
    rm -rf "${root:?}/$name"
    mkdir -m 755 "$root/$name"
done
rm -rf "${root:?}/tmp" "$root/boot" "$root/media" "$root/mnt" "$root/srv"
mkdir -m 1777 "$root/tmp"

# The package manager's state: what is installed has been written down before this.
rm -rf "$root"/var/lib/apt "$root"/var/cache/* "$root"/var/log/* "$root"/var/lib/dpkg/info \
    "$root"/var/lib/dpkg/*-old "$root"/var/lib/dpkg/triggers "$root"/var/lib/dpkg/updates \
    "$root"/var/lib/dpkg/lock* "$root"/etc/apt "$root"/var/tmp
mkdir -m 1777 "$root/var/tmp"
rm -f "$root"/etc/machine-id "$root"/etc/shadow* "$root"/etc/gshadow* "$root"/etc/passwd- \
    "$root"/etc/group- "$root"/etc/subuid* "$root"/etc/subgid* "$root"/var/lib/systemd/* 2>/dev/null || true

# Nothing starts, logs in or rotates anything in a sandbox.
rm -rf "$root"/etc/rc?.d "$root"/etc/init.d "$root"/etc/cron.* "$root"/etc/logrotate.d "$root"/etc/fstab \
    "$root"/etc/motd "$root"/etc/issue* "$root"/etc/update-motd.d "$root"/etc/systemd "$root"/etc/pam.d \
    "$root"/etc/pam.conf "$root"/etc/default "$root"/etc/skel

mkdir -p -m 755 "$root/home" "$root/home/user" "$root/workspace"
find "$root" -xdev \( -type b -o -type c -o -type p -o -type s \) -exec rm -f {} +
find "$root" -xdev ! -type l -exec chown 0:0 {} +
find "$root" -xdev -type l -exec chown -h 0:0 {} +
find "$root" -xdev ! -type l -perm /6000 -exec chmod ug-s {} +
# Everything is readable by everyone: the user inside is no owner of it, and there is no secret in it.
find "$root" -xdev ! -type l ! -perm -444 -exec chmod a+r {} +
find "$root" -xdev -type d ! -perm -111 -exec chmod a+x {} +
chown "$uid:$gid" "$root/home/user" "$root/workspace"
chmod 755 "$root" "$root/home/user" "$root/workspace"
