#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# Bring .venv up to date with this checkout: create it, install requirements, build and install ivshmem.
# If .venv is up to date, only check it, which takes a few hundredths of a second.
#
#   venv.sh [EXTRA...]        install these extras of pyproject.toml (test, dev)
#
# $PYTHON is the interpreter of a new .venv, by default python3. A .venv of another interpreter or from another
# directory is created again.
set -eu
cd "$(dirname "$0")/.."
export LC_ALL=C PIP_DISABLE_PIP_VERSION_CHECK=1
venv=$PWD/.venv
build=build/venv
state=$venv/state

say() { echo "$*" >&2; }

identity() { "$1" -ISc 'import sys; print(sys.base_prefix, "%d.%d" % sys.version_info[:2])' 2>/dev/null; }

# Compare contents instead of modification times, to detect removed files and files restored with their old time.
checkout_sum() {
    find eal ivshmem native pyproject.toml meson.build meson.options README.md LICENSE \
        -name __pycache__ -prune -o -type f -exec sha256sum {} + 2>/dev/null | sort
}

is_complete() {
    [ -f "$state/made" ] || return 1
    { read -r directory && read -r interpreter; } <"$state/made"
    [ "$directory" = "$PWD" ] && [ "$interpreter" = "$(identity "$venv/bin/python")" ] || return 1
    [ -z "${PYTHON:-}" ] || [ "$interpreter" = "$(identity "$PYTHON")" ]
}

make_venv() {
    python=${PYTHON:-python3}
    say "creating .venv with $(command -v "$python")"
    rm -rf "$venv" "$build"
    "$python" -m venv "$venv"
    mkdir "$state"
    printf '%s\n' "$PWD" "$(identity "$venv/bin/python")" >"$state/made"
}

requirements() { # requirements EXTRA...: those of the build, of the package, and of these extras
    "$venv/bin/python" -I - "$@" <<'END'
import sys, tomllib
with open("pyproject.toml", "rb") as file:
    settings = tomllib.load(file)
project = settings["project"]
wanted = settings["build-system"]["requires"] + project["dependencies"]
for extra in sys.argv[1:]:
    wanted += project["optional-dependencies"][extra]
print(*wanted, sep="\n")
END
}

install_requirements() {
    for name in run "$@"; do
        cmp -s pyproject.toml "$state/requirements-$name" && continue
        requirements "$@" >"$state/requirements.txt"
        say "installing $(tr '\n' ' ' <"$state/requirements.txt")"
        "$venv/bin/python" -m pip install --quiet --requirement "$state/requirements.txt"
        for extra in run "$@"; do cp pyproject.toml "$state/requirements-$extra"; done
        return
    done
}

install_package() {
    say 'building and installing ivshmem'
    # --force-reinstall, because the version does not change with every edit. PATH is for meson, ninja and cffi-gen-src.
    # The pip of Debian 12 does not support -C, the short form of --config-settings.
    PATH=$venv/bin:$PATH "$venv/bin/python" -m pip install --quiet --no-build-isolation --no-deps \
        --force-reinstall "--config-settings=build-dir=$build" .
    printf '%s\n' "$1" >"$state/installed"
}

is_current() { # is_current SUM EXTRA...
    [ "$1" = "$(cat "$state/installed" 2>/dev/null)" ] || return 1
    shift
    for name in run "$@"; do cmp -s pyproject.toml "$state/requirements-$name" || return 1; done
}

sum=$(checkout_sum)
is_complete && is_current "$sum" "$@" && exit

tools/needs.sh build
mkdir -p build
exec 9>build/lock
if command -v flock >/dev/null; then flock 9; fi # two concurrent runs of make
is_complete || make_venv
sum=$(checkout_sum)
install_requirements "$@"
is_current "$sum" "$@" || install_package "$sum"
