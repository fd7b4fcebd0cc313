# shellcheck shell=bash disable=SC2154  # variables of build
# A Debian system turned into EL9's names and layout: real dnf and rpm, with repositories of their own on the disk.

el9=$here/stand-in/almalinux
root=$work/root
# shellcheck source=molecule/hosts/stand-in/almalinux/rpm.sh
. "$el9/rpm.sh"

# rootfs SUITE TARBALL
rootfs() {
    step "install Debian's $1"
    base_system "$1"
    step 'make RPM packages'
    packages
    step 'turn the base system into EL9'
    rpm_data_base
    el_names
    remove_debian_tools
    step 'pack'
    tar -C "$root" --numeric-owner -cf "$2" .
}

# list FILE: the lines of one of the lists in this folder
list() {
    grep -v '^#' "$el9/$1"
}

in_root() {
    TMPDIR=/tmp chroot "$root" "$@"
}

# Keeps apt's lists: the payloads of the RPM packages are downloaded inside.
base_system() {
    mmdebstrap --variant=minbase --skip=cleanup/apt \
        --include="$(list base-packages | paste -sd,)" \
        --aptopt='Acquire::Languages "none"' \
        --aptopt='APT::Sandbox::User "root"' \
        --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' \
        "$1" "$root" "$(debian_mirror)"
    # EL's base system has these folders, so that no package of ours owns them.
    mkdir -p "$root"/etc/{pki/ca-trust/source/anchors,pki/tls/certs,rpm,sysconfig} "$root"/usr/libexec
}

packages() {
    local fields folder
    while read -ra fields; do
        package "${fields[@]}" < /dev/null
    done < <(list packages)
    stubs > "$work/stubs.spec"
    build_rpm baseos "$work/stubs.spec"
    for folder in "$work"/repository/*; do
        createrepo_c --quiet --general-compress-type=gz "$folder"
    done
}

rpm_data_base() {
    local baseos=/opt/el9-repository/baseos installed
    cp -a "$work/repository" "$root/opt/el9-repository"
    rm -rf "$root"/var/lib/rpm "$root"/etc/{yum.repos.d,debian_version,os-release} "$root"/usr/lib/os-release
    mkdir "$root/var/lib/rpm"
    # Debian's rpm keeps a data base per user.
    printf '%%_dbpath /var/lib/rpm\n%%dist .el9\n%%rhel 9\n' > "$root/etc/rpm/macros.el9"
    mapfile -t installed < <(list stubs | awk '$2 == "installed" { print $1 "-1-1.el9.noarch.rpm" }')
    in_root rpm --force-debian --install --nodeps "$baseos/almalinux-release-*.rpm" "${installed[@]/#/$baseos/}"
    # Else every call of dnf complains of an empty local repository.
    sed -i 's/^enabled *=.*/enabled = false/' "$root/etc/dnf/plugins/local.conf"
}

el_names() (
    local units=lib/systemd/system bundle=/etc/ssl/certs/ca-certificates.crt
    cd "$root" || return
    copy_tree "$work/overlay" .
    copy_tree "$el9/root" .
    ln -s ../../etc/os-release usr/lib/os-release
    in_root update-ca-trust
    ln -s "$bundle" etc/pki/tls/certs/ca-bundle.crt
    ln -s "$bundle" etc/pki/tls/cert.pem
    in_root groupadd -r wheel
    sed -i 's/^%sudo.*/%wheel\tALL=(ALL)\tALL/' etc/sudoers
    # As on EL, the package python3.11 brings the name python3.11, and pip may install beside rpm's files.
    mv usr/bin/python3.11 usr/bin/python3
    ln -s ../bin/python3 usr/libexec/platform-python
    rm -f usr/lib/python3*/EXTERNALLY-MANAGED
    ln -sf dnf usr/bin/yum
    ln -s cron usr/sbin/crond
    mv "$units/cron.service" "$units/crond.service"
    rm etc/systemd/system/multi-user.target.wants/cron.service
    ln -s "/$units/crond.service" etc/systemd/system/multi-user.target.wants/
    : > etc/machine-id
    rm -f etc/hostname etc/resolv.conf
)

remove_debian_tools() {
    local package unit
    for unit in apt-daily apt-daily-upgrade dpkg-db-backup e2scrub_all; do
        rm -f "$root"/{etc/systemd/system/timers.target.wants,lib/systemd/system}/$unit.{timer,service}
    done
    for package in apt dpkg debconf; do
        grep -E '^/(usr/)?(s?bin|lib/apt|lib/dpkg|share/(dpkg|perl5/Dpkg))/' "$root/var/lib/dpkg/info/$package.list" \
            | grep -v update-alternatives | while read -r file; do
                [ -d "$root$file" ] || rm -f "$root$file"
            done
    done
    rm -rf "$root"/etc/{apt,dpkg} "$root"/var/{lib,cache}/{apt,debconf} "$root"/var/cache/dnf \
        "$root"/var/lib/dpkg/{available,info,status}* "$root"/usr/lib/apt \
        "$root"/usr/share/{bug,doc,lintian,man} "$root"/var/log/{apt,dpkg.log,alternatives.log}
}
