#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# List missing packages, with the command that installs them.
#
#   needs.sh build            list missing build requirements; exit 1 if there are any. $PYTHON is the interpreter.
#   needs.sh missing GROUP    print the missing packages of a group on one line; exit 1 if there are any.
#   needs.sh install GROUP    as root with apt, install the missing packages; otherwise list them. Always exit 0.
#
# GROUP is vm (QEMU guests), dpdk (programs compiled against DPDK) or tests (vm, dpdk and other test requirements).
set -eu
PATH=$PATH:/usr/sbin:/sbin # depmod is in sbin, which is not in every user's PATH
python=${PYTHON:-python3}

packages() { # Debian package names
    case $1 in
    vm) echo qemu-system-x86 busybox-static kmod cpio ;;
    dpdk) echo libdpdk-dev pkg-config ;;
    tests) echo "$(packages vm) $(packages dpdk) python3-venv libudev1 udev umockdev util-linux hwloc libvirt-clients libxml2-utils zsh fish" ;;
    *) echo "needs.sh: GROUP must be vm, dpdk or tests, got $1" >&2; exit 2 ;;
    esac
}

is_installed() { # checks for the package's files, because they can also come from a local build
    case $1 in
    qemu-system-x86) command -v qemu-system-x86_64 ;;
    busybox-static) command -v busybox && ! ldd "$(command -v busybox)" ;;
    kmod) command -v depmod ;;
    cpio | pkg-config | zsh | fish) command -v "$1" ;;
    libdpdk-dev) pkg-config --exists libdpdk ;;
    python3-venv) /usr/bin/python3 -ISc 'import ensurepip' ;; # for a venv that non-root users can read
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
        is_installed "$package" || printf '%s ' "$package"
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

install_command() { # takes Debian package names
    is_root || printf 'sudo '
    if has_apt; then
        echo "apt-get install $*"
    else
        printf 'dnf install'
        for package in "$@"; do printf ' %s' "$(fedora_name "$package")"; done
        echo
    fi
}

report_missing() { # report_missing REQUIREMENT PACKAGE...: print one line of the list
    requirement=$1
    shift
    echo "  $requirement: $(install_command "$@")"
}

# --- build --------------------------------------------------------------------------------------------------

ask_python() { "$python" -ISc "import os, sys, sysconfig; $1" 2>/dev/null; }

newer_python() {
    for name in python3.14 python3.13 python3.12 python3.11; do
        # Run the interpreter: pyenv has python3.12 in PATH even if it is not selected, and then it fails.
        "$name" -ISc 'import venv' >/dev/null 2>&1 && echo "$name" && return
    done
    return 0
}

check_python() {
    if ! command -v "$python" >/dev/null 2>&1; then
        report_missing "Python 3.11 or later ($python not found)" python3 python3-dev python3-venv
        return
    fi
    if ! ask_python 'sys.exit(sys.version_info < (3, 11))'; then
        found=$(newer_python)
        if [ -n "$found" ]; then
            echo "  Python 3.11 or later ($python is older or does not run): make PYTHON=$found"
        else
            report_missing "Python 3.11 or later ($python is older or does not run)" python3.11 python3.11-dev python3.11-venv
        fi
        return
    fi
    version=$(ask_python 'print("python%d.%d" % sys.version_info[:2])')
    ask_python 'sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
        report_missing "Python.h of $(command -v "$python")" "$version-dev"
    ask_python 'import ensurepip, venv' || report_missing "venv and ensurepip of $(command -v "$python")" "$version-venv"
}

check_programs() {
    command -v git >/dev/null 2>&1 || report_missing git git
    command -v make >/dev/null 2>&1 || report_missing make make
    # Debian's gcc does not depend on the headers of the C library.
    echo '#include <stdio.h>' | ${CC:-cc} -x c -fsyntax-only - >/dev/null 2>&1 ||
        report_missing 'a C compiler with the headers of the C library' gcc libc6-dev
}

check_build() {
    missing=$(check_programs && check_python)
    [ -z "$missing" ] && return
    printf '%s\n' 'Missing build requirements, and the commands that install them:' "$missing" >&2
    exit 1
}

# --- tests --------------------------------------------------------------------------------------------------

apt_install() {
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
        -o DPkg::Lock::Timeout=300 "$@" </dev/null
}

install_group() {
    missing_packages=$(missing "$1")
    [ -n "$missing_packages" ] || return 0
    if is_root && has_apt; then
        echo "installing $missing_packages"
        # Update the package lists only if they are missing or out of date.
        # shellcheck disable=SC2086 # word splitting intended
        apt_install $missing_packages >/dev/null 2>&1 || { apt-get update -q && apt_install $missing_packages; } || true
        missing_packages=$(missing "$1")
        [ -n "$missing_packages" ] || return 0
    fi
    # shellcheck disable=SC2086
    echo "Missing packages: $missing_packages
  $(install_command $missing_packages)
Tests that require them are skipped with a message." >&2
}

case ${1-} in
build) check_build ;;
install) install_group "$2" ;;
missing)
    missing_packages=$(missing "$2")
    # shellcheck disable=SC2086
    [ -z "$missing_packages" ] || { echo "$missing_packages($(install_command $missing_packages))"; exit 1; }
    ;;
*) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
