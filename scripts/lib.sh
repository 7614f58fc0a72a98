# Shared by the scripts beside it: messages, missing tools, the image cache, a private /dev.
# Sourced, never run; the caller has done `set -eu` and stands at the top of the repository.

if [ -t 1 ]; then
    bold=$(printf '\033[1m') red=$(printf '\033[31m') green=$(printf '\033[32m')
    plain=$(printf '\033[0m')
else
    bold='' red='' green='' plain=''
fi

say() { printf '%s\n' "${bold}== $*${plain}"; }
note() { printf '   %s\n' "$*"; }
good() { printf '   %s\n' "${green}ok${plain}  $*"; }
die() {
    printf '%s\n' "${red}error:${plain} $*" >&2
    exit 1
}

is_root() { [ "$(id -u)" = 0 ]; }

# need COMMAND=PACKAGE...: installs by apt the packages whose command, or /FILE, is missing.
need() {
    missing=''
    for pair in "$@"; do
        case $pair in
        /*) [ -e "${pair%%=*}" ] || missing="$missing ${pair#*=}" ;;
        *) command -v "${pair%%=*}" >/dev/null 2>&1 || missing="$missing ${pair#*=}" ;;
        esac
    done
    [ -n "$missing" ] || return 0
    command -v apt-get >/dev/null 2>&1 ||
        die "missing:$missing; this is no Debian or Ubuntu, install them by hand"
    is_root || die "missing:$missing; run as root, or: sudo apt-get install$missing"
    note "installing$missing"
    export DEBIAN_FRONTEND=noninteractive
    apt_log=$(mktemp)
    # shellcheck disable=SC2086
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing; } \
        >"$apt_log" 2>&1 </dev/null || {
        tail -n 20 "$apt_log" >&2
        rm -f "$apt_log"
        die "apt-get could not install$missing; install them by hand and run this again"
    }
    rm -f "$apt_log"
}

# What the launcher and `farebox image build` start.
need_for_sandboxes() {
    need mmdebstrap=mmdebstrap mkfs.ext4=e2fsprogs \
        /usr/share/keyrings/debian-archive-keyring.gpg=debian-archive-keyring
}

need_rust() {
    command -v cargo >/dev/null 2>&1 && return 0
    [ -x "$HOME/.cargo/bin/cargo" ] || die "no cargo: install Rust 1.95 or newer (rustup) first"
    PATH="$HOME/.cargo/bin:$PATH"
    export PATH
}

# Where cargo puts what it builds.
target_dir() { printf '%s\n' "${CARGO_TARGET_DIR:-$PWD/target}"; }

# One image store for each state of the recipes, outside the repository.
image_store() {
    key=$(find rootfs -type f ! -path 'rootfs/out/*' ! -name '*.md' -print | LC_ALL=C sort |
        while IFS= read -r file; do sha256sum "$file"; done | sha256sum | cut -c1-16)
    printf '%s\n' "${FAREBOX_IMAGE_CACHE:-/var/cache/farebox/images}/$key"
}

# prepare_image FAREBOX STORE NAME: builds NAME unless the store has it as the recipe says.
prepare_image() {
    note "image $3 in $2 (built once; that takes a minute or two)"
    mkdir -p "$2"
    # With a pipe for standard output: a build must never hold the caller's terminal.
    FAREBOX_IMAGES__DIR="$2" "$1" image build "$3" </dev/null | sed 's/^/   /'
    FAREBOX_IMAGES__DIR="$2" "$1" image list | grep -q "^$3:" || return 1
}

# Runs a command in a mount namespace of its own, with a /dev of its own: whatever happens to
# /dev/null in there, the host's stays as it is. Keeps the process id.
private_world() {
    # The single quotes are meant: the inner shell expands what is in them.
    # shellcheck disable=SC2016
    exec unshare -m --propagation private sh -c '
        set -eu
        new=$(mktemp -d)
        mount -t tmpfs -o mode=755,nosuid farebox-dev "$new"
        mknod -m 666 "$new/null" c 1 3
        mknod -m 666 "$new/zero" c 1 5
        mknod -m 666 "$new/full" c 1 7
        mknod -m 666 "$new/random" c 1 8
        mknod -m 666 "$new/urandom" c 1 9
        mknod -m 666 "$new/tty" c 5 0
        mknod -m 600 "$new/loop-control" c 10 237
        mkdir "$new/pts" "$new/shm"
        mount -t devpts -o newinstance,ptmxmode=666,mode=620 farebox-pts "$new/pts"
        mount -t tmpfs -o mode=1777,nosuid,nodev farebox-shm "$new/shm"
        ln -s pts/ptmx "$new/ptmx"
        ln -s /proc/self/fd "$new/fd"
        ln -s fd/0 "$new/stdin"
        ln -s fd/1 "$new/stdout"
        ln -s fd/2 "$new/stderr"
        mount --move "$new" /dev
        rmdir "$new"
        exec "$@"' private-world "$@"
}

# A Python of that minor version, such as 3.12; nothing where there is none.
python() {
    for candidate in "python$1" python3 "$HOME/.pyenv/versions/$1".*/bin/python; do
        "$candidate" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" \
            >/dev/null 2>&1 || continue
        printf '%s\n' "$candidate"
        return 0
    done
    return 1
}

# venv PYTHON NAME REQUIREMENT...: a virtual environment with these packages, made once; its path.
venv() {
    place="${FAREBOX_CHECK_CACHE:-/var/cache/farebox/checks}/$2"
    wanted=$(shift 2 && printf '%s\n' "$@")
    if [ "$(cat "$place/made" 2>/dev/null)" != "$wanted" ]; then
        rm -rf "$place"
        mkdir -p "$place"
        "$1" -m venv "$place" >&2 || return 1
        (shift 2 && "$place/bin/python" -m pip install --quiet --disable-pip-version-check "$@") >&2 ||
            return 1
        printf '%s\n' "$wanted" >"$place/made"
    fi
    printf '%s\n' "$place"
}
