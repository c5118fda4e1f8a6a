#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# Names what this machine lacks, with the command that installs it.
#
#   needs.sh build            what building takes; exit 1 if anything is missing. $PYTHON is the interpreter.
#   needs.sh missing GROUP    the missing packages of a group, on one line; exit 1 if there are any.
#   needs.sh install GROUP    as root with apt: installs what is missing. Elsewhere: names it. Never fails.
#
# GROUP is vm (QEMU guests), dpdk (programs compiled against DPDK) or tests (those, and what else tests use).
set -eu
PATH=$PATH:/usr/sbin:/sbin # depmod is there, and is not on every user's PATH
python=${PYTHON:-python3}

packages() { # Debian's names
    case $1 in
    vm) echo qemu-system-x86 busybox-static kmod cpio ;;
    dpdk) echo libdpdk-dev pkg-config ;;
    tests) echo "$(packages vm) $(packages dpdk) python3-venv libudev1 udev umockdev util-linux hwloc libvirt-clients libxml2-utils zsh fish" ;;
    *) echo "needs.sh: no group $1; there are vm, dpdk and tests" >&2; exit 2 ;;
    esac
}

is_there() { # looks for what the package brings, so that a build of one's own counts too
    case $1 in
    qemu-system-x86) command -v qemu-system-x86_64 ;;
    busybox-static) command -v busybox && ! ldd "$(command -v busybox)" ;;
    kmod) command -v depmod ;;
    cpio | pkg-config | zsh | fish) command -v "$1" ;;
    libdpdk-dev) pkg-config --exists libdpdk ;;
    python3-venv) /usr/bin/python3 -ISc 'import ensurepip' ;; # for a venv that a plain user can read
    libvirt-clients) command -v virt-xml-validate ;;
    libxml2-utils) command -v xmllint ;;
    udev) test -x /lib/systemd/systemd-udevd && command -v udevadm ;;
    umockdev) command -v umockdev-run ;;
    hwloc) command -v lstopo-no-graphics ;;
    libudev1) ldconfig -p | grep 'libudev\.so\.1' ;;
    util-linux) command -v lscpu && command -v setpriv && command -v unshare ;;
    esac >/dev/null 2>&1
}

missing() {
    for package in $(packages "$1"); do
        is_there "$package" || printf '%s ' "$package"
    done
}

has_apt() { command -v apt-get >/dev/null 2>&1; }
is_root() { [ "$(id -u)" = 0 ]; }

fedora_name() {
    case $1 in
    qemu-system-x86) echo qemu-system-x86-core ;;
    busybox-static) echo busybox ;;
    libdpdk-dev) echo dpdk-devel ;;
    pkg-config) echo pkgconf-pkg-config ;;
    libudev1) echo systemd-libs ;;
    udev) echo systemd-udev ;;
    libvirt-clients) echo libvirt-client ;;
    libxml2-utils) echo libxml2 ;;
    libc6-dev) echo glibc-devel ;;
    python3-venv) echo python3-libs ;;
    python3*-dev) echo "${1}el" ;;
    python3*-venv) echo "${1%-venv}-libs" ;;
    *) echo "$1" ;;
    esac
}

install_command() { # of Debian's package names
    is_root || printf 'sudo '
    if has_apt; then
        echo "apt-get install $*"
    else
        printf 'dnf install'
        for package in "$@"; do printf ' %s' "$(fedora_name "$package")"; done
        echo
    fi
}

lacks() { # lacks WHAT PACKAGE...: one line of the list
    what=$1
    shift
    echo "  $what: $(install_command "$@")"
}

# --- build --------------------------------------------------------------------------------------------------

ask_python() { "$python" -ISc "import os, sys, sysconfig; $1" 2>/dev/null; }

newer_python() {
    for name in python3.14 python3.13 python3.12 python3.11; do
        # Run, not only looked for: pyenv has a python3.12 on PATH that says it is not chosen.
        "$name" -ISc 'import venv' >/dev/null 2>&1 && echo "$name" && return
    done
    return 0
}

check_python() {
    if ! command -v "$python" >/dev/null 2>&1; then
        lacks "Python 3.11 or later ($python is not there)" python3 python3-dev python3-venv
        return
    fi
    if ! ask_python 'sys.exit(sys.version_info < (3, 11))'; then
        found=$(newer_python)
        if [ -n "$found" ]; then
            echo "  Python 3.11 or later ($python is older, or does not run): make PYTHON=$found"
        else
            lacks "Python 3.11 or later ($python is older, or does not run)" python3.11 python3.11-dev python3.11-venv
        fi
        return
    fi
    version=$(ask_python 'print("python%d.%d" % sys.version_info[:2])')
    ask_python 'sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
        lacks "Python.h of $(command -v "$python")" "$version-dev"
    ask_python 'import ensurepip, venv' || lacks "venv and ensurepip of $(command -v "$python")" "$version-venv"
}

check_programs() {
    command -v git >/dev/null 2>&1 || lacks git git
    command -v make >/dev/null 2>&1 || lacks make make
    # Debian's gcc comes without the C library's headers.
    echo '#include <stdio.h>' | ${CC:-cc} -x c -fsyntax-only - >/dev/null 2>&1 ||
        lacks 'a C compiler with the headers of the C library' gcc libc6-dev
}

check_build() {
    lacking=$(check_programs && check_python)
    [ -z "$lacking" ] && return
    printf '%s\n' 'This machine cannot build ivshmem yet. What is missing, and what installs it:' "$lacking" >&2
    exit 1
}

# --- tests --------------------------------------------------------------------------------------------------

apt_install() {
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
        -o DPkg::Lock::Timeout=300 "$@" </dev/null
}

install_group() {
    lacking=$(missing "$1")
    [ -n "$lacking" ] || return 0
    if is_root && has_apt; then
        echo "installing $lacking"
        # The package lists are asked for only when they are missing or out of date.
        # shellcheck disable=SC2086 # a list of words
        apt_install $lacking >/dev/null 2>&1 || { apt-get update -q && apt_install $lacking; } || true
        lacking=$(missing "$1")
        [ -n "$lacking" ] || return 0
    fi
    # shellcheck disable=SC2086
    echo "Missing here: $lacking
  $(install_command $lacking)
What needs them is skipped, and says so." >&2
}

case ${1-} in
build) check_build ;;
install) install_group "$2" ;;
missing)
    lacking=$(missing "$2")
    # shellcheck disable=SC2086
    [ -z "$lacking" ] || { echo "$lacking($(install_command $lacking))"; exit 1; }
    ;;
*) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
