# shellcheck shell=bash disable=SC2154  # variables of rootfs.sh
# Debian packages made into RPM packages with EL9's names and layout. Works in $work; $root is the base system.
#
# Of a package, layout/NAME may hold
#   arrange     bash, run in the payload's folder: removes and moves what EL has elsewhere
#   root/       files of EL, laid over the result
#   attributes  lines "MODE USER GROUP PATH"; a path that isn't there is made as a folder
#   spec        what follows the common preamble: further tags, %description, scriptlets

# unpack FOLDER DEBIAN-PACKAGE... [-GLOB...]: unpacks packages and what they need beyond the base system.
# Prints the first one's upstream version.
unpack() {
    local folder=$1 archives=$root/var/cache/apt/archives wanted=() unwanted=() package deb glob
    shift
    for package; do
        case $package in -*) unwanted+=("${package#-}") ;; *) wanted+=("$package") ;; esac
    done
    rm -f "$archives"/*.deb
    in_root apt-get -qq --yes --no-install-recommends --download-only install "${wanted[@]}" >&2
    for deb in "$archives"/*.deb; do
        package=${deb##*/} package=${package%%_*}
        for glob in "${unwanted[@]}"; do
            # shellcheck disable=SC2053  # a pattern on purpose
            [[ $package != $glob ]] || continue 2
        done
        dpkg-deb --extract "$deb" "$folder"
    done
    dpkg-deb --field "$archives/${wanted[0]}"_*.deb Version | sed -E 's/^[0-9]+://; s/[-+~].*//'
}

# strip_debian FOLDER: what holds for every payload, a merged /usr and no folders that only Debian has.
strip_debian() {
    local folder
    for folder in bin sbin lib lib64; do
        [ -d "$1/$folder" ] || continue
        mkdir -p "$1/usr/$folder"
        cp -a "$1/$folder/." "$1/usr/$folder/"
        rm -rf "${1:?}/$folder"
    done
    rm -rf "$1"/usr/share/{bug,doc,info,lintian,locale,man} "$1"/etc/{apparmor.d,default,init.d,ufw}
}

# package NAME VERSION REPOSITORY PROVIDES REQUIRES [DEBIAN-PACKAGE...]: one line of the list made an RPM.
package() {
    local name=$1 version=$2 repository=$3 provides=$4 requires=$5 upstream
    local payload=$work/payload/$1 layout=$el9/layout/$1
    shift 5
    mkdir -p "$payload"
    if [ $# -gt 0 ]; then
        upstream=$(unpack "$payload" "$@")
        [ "$version" != - ] || version=$upstream
        strip_debian "$payload"
    fi
    [ ! -f "$layout/arrange" ] || (cd "$payload" && bash -O extglob -eu "$layout/arrange")
    [ ! -d "$layout/root" ] || copy_tree "$layout/root" "$payload"
    file_list "$payload" "$layout/attributes" > "$work/$name.files"
    {
        spec_preamble "$name" "$version"
        [ "$provides" = - ] || echo "Provides: ${provides//,/ }"
        [ "$requires" = - ] || echo "Requires: ${requires//,/ }"
        if [ -f "$layout/spec" ]; then cat "$layout/spec"; else printf '%%description\n%s, from Debian.\n' "$name"; fi
        echo "%files -f $work/$name.files"
    } > "$work/$name.spec"
    build_rpm "$repository" "$work/$name.spec" --noclean --buildroot "$payload"
}

# file_list PAYLOAD ATTRIBUTES: the lines of %files. Folders that the base system has belong to no package; files under
# /etc are configuration.
file_list() {
    local payload=$1 mode user group path kind line
    local -A attribute=()
    if [ -f "$2" ]; then
        while read -r mode user group path; do
            [ -e "$payload$path" ] || mkdir -p "$payload$path"
            attribute[$path]="%attr($mode,$user,$group) "
        done < "$2"
    fi
    echo '%defattr(-,root,root,-)' # an empty list is an error
    find "$payload" -mindepth 1 -printf '%y /%P\n' | sort | while read -r kind path; do
        line=${attribute[$path]:-}
        case $kind$path in
            d*) [ -n "$line" ] || [ ! -d "$root$path" ] || continue; line+='%dir ' ;;
            ?/etc/*) line+='%config(noreplace) ' ;;
        esac
        echo "$line\"$path\""
    done
}

# stubs: one source of all the empty packages.
stubs() {
    local name provides
    spec_preamble stubs 1
    printf 'BuildArch: noarch\n%%description\nEmpty.\n'
    while read -r name _ provides; do
        printf '%%package -n %s\nSummary: Empty, see the README of the test hosts\n' "$name"
        [ "$provides" = - ] || echo "Provides: ${provides//,/ }"
        printf '%%description -n %s\nEmpty.\n%%files -n %s\n' "$name" "$name"
    done < <(list stubs)
}

# spec_preamble NAME VERSION: no dependencies are guessed, since the names inside the payload are Debian's.
spec_preamble() {
    cat << E
%global debug_package %{nil}
%global __os_install_post %{nil}
%global _build_id_links none
%define _binary_payload w1.gzdio
Name: $1
Version: $2
Release: 1.el9
Summary: $1, made from Debian packages for tests
License: various
AutoReqProv: no
E
}

# build_rpm REPOSITORY SPEC [OPTION...]
build_rpm() {
    local repository=$work/repository/$1 spec=$2
    shift 2
    rpmbuild --quiet -bb "$@" --define "_topdir $work/rpmbuild" --define "_rpmdir $repository" \
        --define '_build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm' "$spec"
}
