#!/bin/busybox sh
# What every test here stands on, asked of the guest itself: a pure v2 tree whose limits bite.
# Each check prints one line; the first that fails decides the exit code.
failed=0
check() { # check NAME COMMAND...: the command's own success is the verdict
    told=$1
    shift
    if "$@"; then echo "probe: ok: $told"; else
        echo "probe: FAILED: $told"
        failed=1
    fi
}
root=/sys/fs/cgroup
group=$root/probe

pure_v2() { # no hierarchy but the unified one, and it is a mount of its own
    [ "$(grep -c cgroup /proc/mounts)" = 1 ] && grep -q " $root cgroup2 " /proc/mounts &&
        [ "$(cat /proc/self/cgroup)" = "0::/system.slice/test.service" ] &&
        awk 'NR > 1 && $2 != 0 { exit 1 }' /proc/cgroups
}
controllers() {
    for name in cpu io memory pids; do grep -qw "$name" $root/cgroup.controllers || return 1; done
}
namespaces() { [ "$(cat /proc/sys/user/max_user_namespaces)" -gt 0 ] && unshare -U true; }
seccomp() { grep -q '^Seccomp:' /proc/self/status; }
filesystems() {
    for name in overlay ext4 tmpfs; do grep -qw "$name" /proc/filesystems || return 1; done
}
loop_disk() { # an ext4 image on a loop device
    dd if=/dev/zero of=/root/probe.img bs=1M count=8 2>/dev/null &&
        mkfs.ext4 -q -F /root/probe.img && mkdir -p /mnt &&
        mount -o loop /root/probe.img /mnt && touch /mnt/file && umount /mnt && rm /root/probe.img
}
overlay_mount() {
    mkdir -p /root/o/low /root/o/up /root/o/work /root/o/all && echo x >/root/o/low/file &&
        mount -t overlay none /root/o/all \
            -o lowerdir=/root/o/low,upperdir=/root/o/up,workdir=/root/o/work &&
        [ "$(cat /root/o/all/file)" = x ] && umount /root/o/all && rm -r /root/o
}
memory_limit() { # a child that wants more than its limit is killed, and memory.events says so
    echo "+memory +pids +cpu" >$root/cgroup.subtree_control && mkdir $group &&
        echo 16777216 >$group/memory.max && echo 1 >$group/memory.oom.group || return 1
    sh -c "echo \$\$ >$group/cgroup.procs; exec tail -c 67108864 /dev/zero" >/dev/null 2>&1
    status=$?
    grep -q '^oom_kill [1-9]' $group/memory.events && [ "$status" = 137 ] &&
        [ "$(cat $group/memory.peak)" -gt 15000000 ]
}
kill_file() { # cgroup.kill ends everything; the empty group can be removed
    sh -c "echo \$\$ >$group/cgroup.procs; sleep 100 & sleep 100" &
    child=$!
    until grep -q '^populated 1' $group/cgroup.events; do usleep 10000; done
    echo 1 >$group/cgroup.kill
    wait $child 2>/dev/null
    tries=0
    while grep -q '^populated 1' $group/cgroup.events && [ $tries -lt 100 ]; do
        tries=$((tries + 1))
        usleep 10000
    done
    rmdir $group && echo "-memory -pids -cpu" >$root/cgroup.subtree_control
}

echo "probe: $(uname -r), $(nproc) processors, up $(cut -d' ' -f1 /proc/uptime) s"
echo "probe: controllers: $(cat $root/cgroup.controllers)"
check "a pure cgroup v2 tree" pure_v2
check "controllers cpu, io, memory and pids" controllers
check "user namespaces" namespaces
check "seccomp" seccomp
check "overlay, ext4 and tmpfs" filesystems
check "an ext4 image on a loop device" loop_disk
check "an overlay mount" overlay_mount
check "a memory limit that kills, with events and peak" memory_limit
check "cgroup.kill and an empty group's removal" kill_file
echo "probe: done, up $(cut -d' ' -f1 /proc/uptime) s"
exit $failed
