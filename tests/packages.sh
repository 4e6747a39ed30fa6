#!/bin/sh
# Installs the Debian packages that tests need and that are not there yet.
set -eu
missing=""
[ -x /usr/bin/chromium ] || missing="$missing chromium"
PATH="$PATH:/usr/sbin:/sbin"
needs() {
    command -v "$1" >/dev/null || missing="$missing $2"
}
needs sshd openssh-server
needs debootstrap debootstrap
needs systemd-nspawn systemd-container
needs ip iproute2
needs iptables iptables
needs mkfs.ext4 e2fsprogs
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ]; then
    echo "not root: these packages are not installed, and tests that need them are left out:$missing" >&2
    exit 0
fi
echo "installing Debian packages:$missing" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086  # a list of names
apt-get install -y -qq --no-install-recommends $missing >/dev/null
