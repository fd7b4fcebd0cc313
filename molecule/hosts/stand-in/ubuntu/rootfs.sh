# shellcheck shell=bash disable=SC2154  # variables of build
# A Debian system that calls itself Ubuntu: the folder named after the suite holds what it says of itself.
# PRETTY_NAME there must not contain "Debian": Ansible would believe it.

# rootfs SUITE TARBALL
rootfs() {
    step "install Debian's $1"
    copy_tree "$here/stand-in/ubuntu/$1" "$work/overlay"
    # In a hook $1 is the root of the new system.
    # shellcheck disable=SC2016
    mmdebstrap --variant=minbase \
        --include=acl,ca-certificates,curl,dbus,iproute2,openssl,procps,python3,python3-apt,sudo,systemd,systemd-sysv \
        --aptopt='Acquire::Languages "none"' \
        --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --customize-hook='rm "$1/etc/os-release"' \
        --customize-hook="sync-in '$work/overlay' /" \
        --customize-hook='chroot "$1" update-ca-certificates' \
        --customize-hook='rm -f "$1/etc/hostname" "$1/etc/resolv.conf"; : > "$1/etc/machine-id"' \
        "$1" "$2" "$(debian_mirror)"
}
