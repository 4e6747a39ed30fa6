#!/bin/sh
# Makes the file tree that hosts of one Debian release start from.
#   make_tree.sh RELEASE TREE PASSWORD PACKAGES [MIRROR]
# Accounts: root; sudoer (sudo without a password); asked (sudo asks for it); guest (no sudo). All have PASSWORD.
set -eu
release=$1 tree=$2 password=$3 packages=$4
shift 4
debootstrap --variant=minbase --include="$packages" "$release" "$tree" "$@"

cat >"$tree/tmp/settle" <<'END'
set -eu
for user in sudoer asked guest; do
    useradd --create-home --shell /bin/bash "$user"
done
for user in root sudoer asked guest; do
    echo "$user:$1"
done | chpasswd
echo 'sudoer ALL=(ALL:ALL) NOPASSWD: ALL' >/etc/sudoers.d/fleet
echo 'asked ALL=(ALL:ALL) ALL' >>/etc/sudoers.d/fleet
chmod 0440 /etc/sudoers.d/fleet
visudo --check --quiet
mkdir -p /etc/ssh/sshd_config.d
{
    echo 'PermitRootLogin yes'
    echo 'PasswordAuthentication yes'
} >/etc/ssh/sshd_config.d/fleet.conf
# A newer sshd shuts out an address after failed log-ins; here all tests come from one address.
if sshd -G -o 'PerSourcePenaltyExemptList 10.77.0.0/16' >/dev/null 2>&1; then
    echo 'PerSourcePenaltyExemptList 10.77.0.0/16' >>/etc/ssh/sshd_config.d/fleet.conf
fi
systemctl enable systemd-networkd >/dev/null 2>&1
systemctl mask systemd-networkd-wait-online apt-daily.timer apt-daily-upgrade.timer >/dev/null 2>&1
# Each host gets its own of these.
rm -f /etc/ssh/ssh_host_* /var/lib/dbus/machine-id /etc/hostname
: >/etc/machine-id
rm -rf /var/cache/apt/* /var/lib/apt/lists/* /var/log/*.log
END
chroot "$tree" /bin/sh /tmp/settle "$password"
rm "$tree/tmp/settle"
