#!/bin/busybox sh
# Process 1 of the guest's real root: makes a pure cgroup v2 system, runs /payload/run within its
# deadline, says its exit code on the third serial port, powers off.
#
# Ports: ttyS0 kernel and this script's faults, ttyS1 what the payload prints, ttyS2 the verdict.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
for port in 1 2; do stty -F /dev/ttyS$port raw -echo; done
verdict() {
    echo "$1" >/dev/ttyS2
    # What was written last may still be on its way through pipe and port.
    usleep 300000
    poweroff -f
}
{
    mount -t cgroup2 -o nosuid,nodev,noexec none /sys/fs/cgroup &&
        mkdir -p /dev/pts /dev/shm &&
        mount -t devpts -o gid=5,mode=620,ptmxmode=666 none /dev/pts &&
        mount -t tmpfs -o nosuid,nodev,mode=1777 none /dev/shm &&
        chmod 1777 /tmp &&
        mount -t tmpfs -o nosuid,nodev,mode=755 none /run
    ip link set lo up && hostname farebox-v2
} || verdict "no-system"
ln -sf /proc/self/fd /dev/fd
# As under systemd: what is tested starts in a group below the root that no controller reaches.
service=/sys/fs/cgroup/system.slice/test.service
mkdir -p $service || verdict "no-system"
. /payload/settings
# Through a pipe, so that nothing takes the port for a terminal.
mkfifo /run/output || verdict "no-system"
cat /run/output >/dev/ttyS1 &
setsid sh -c "echo 0 >$service/cgroup.procs; exec sh /payload/run" </dev/null >/run/output 2>&1 &
payload=$!
(
    sleep "$GUEST_TIMEOUT_S"
    echo "guest: out of time after $GUEST_TIMEOUT_S s; what is still there:" >/dev/ttyS1
    ps -o pid,ppid,stat,args | grep -v '\[' >/dev/ttyS1
    verdict "timeout"
) &
wait "$payload"
verdict "exit $?"
