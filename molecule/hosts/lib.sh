# shellcheck shell=bash disable=SC2154  # variables of build
# What build and the stand-ins' rootfs.sh share. They run with `host` (the image's short name) and `work` (a scratch
# folder) set, standard output and error in a log, and file descriptor 3 on the terminal.

step() {
    printf '[%3d s] %s: %s\n' "$SECONDS" "$host" "$*" >&3
}

# copy_tree FROM TO: modes reduced to executable or not, whatever the umask of the checkout was.
copy_tree() {
    tar -C "$1" --owner=0 --group=0 --mode='u=rwX,go=rX' -cf - . | tar -C "$2" -xf -
}

# The machine's own source of Debian packages, unless told otherwise.
debian_mirror() {
    local mirror=${FLASKFLEET_DEBIAN_MIRROR:-}
    # shellcheck disable=SC2016  # apt's own placeholder
    [ -n "$mirror" ] || mirror=$(apt-get indextargets --format '$(REPO_URI)' \
        'Identifier: Packages' 'Label: Debian' 'Component: main' | head -n 1)
    if [ -z "$mirror" ]; then
        step 'no source of Debian packages is known here: set FLASKFLEET_DEBIAN_MIRROR'
        return 1
    fi
    echo "$mirror"
}

# machine_settings FOLDER FAMILY: what it takes to reach package mirrors from here (certificate authorities, proxies,
# pip's index), as a tree of files for the image.
machine_settings() {
    local folder=$1 authorities=usr/local/share/ca-certificates bundle=/etc/ssl/certs/ca-certificates.crt proxies pip=()
    mkdir -p "$folder/etc"
    if [ "$2" = almalinux ]; then
        authorities=etc/pki/ca-trust/source/anchors bundle=/etc/pki/tls/certs/ca-bundle.crt
    else
        proxies=$(apt-config dump --format '%f "%v";%n' Acquire::http::Proxy Acquire::https::Proxy)
    fi
    if compgen -G '/usr/local/share/ca-certificates/*.crt' > /dev/null; then
        mkdir -p "$folder/$authorities"
        cp /usr/local/share/ca-certificates/*.crt "$folder/$authorities/"
        pip+=("cert = $bundle")
    fi
    if [ -n "${proxies:-}" ]; then
        mkdir -p "$folder/etc/apt/apt.conf.d"
        echo "$proxies" > "$folder/etc/apt/apt.conf.d/90proxy"
    fi
    [ -z "${PIP_INDEX_URL:-}" ] || pip+=("index-url = $PIP_INDEX_URL")
    [ ${#pip[@]} -eq 0 ] || printf '%s\n' '[global]' "${pip[@]}" > "$folder/etc/pip.conf"
}
