#!/bin/sh
# Becomes the nspawn process of one host. Run in a mount namespace of its own: every mount made here ends with it.
#   boot.sh FOLDER BASE COMMAND...
# FOLDER holds disk.img (the host's disk), seed/ (what a new disk starts with), and the mount points disk/ and root/.
# FLEET_GROUPS lists the control groups to join.
set -eu
folder=$1 base=$2
shift 2
for group in $FLEET_GROUPS; do
    echo $$ >"$group/cgroup.procs"
done
unset FLEET_GROUPS
mount -o loop,noatime "$folder/disk.img" "$folder/disk"
if [ ! -d "$folder/disk/upper" ]; then
    rm -rf "$folder/disk/new" "$folder/disk/work"
    mkdir "$folder/disk/new" "$folder/disk/work"
    cp -a "$folder/seed/." "$folder/disk/new"
    mv "$folder/disk/new" "$folder/disk/upper"
fi
mount -t overlay overlay \
    -o "lowerdir=$base,upperdir=$folder/disk/upper,workdir=$folder/disk/work" "$folder/root"
mkdir -p /run/systemd # nspawn keeps locks there; these must not outlive it, nor meet those of this machine
mount -t tmpfs -o mode=755 tmpfs /run/systemd
exec "$@"
