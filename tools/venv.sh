#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# Brings .venv to the state of this checkout: made, requirements installed, ivshmem built and installed.
# When that is so already it only looks, which takes a few hundredths of a second.
#
#   venv.sh [EXTRA...]        with these extras of pyproject.toml (test, dev)
#
# $PYTHON is the interpreter of a new .venv, python3 by default. A .venv of another interpreter, or one that
# was moved here from another folder, is made anew.
set -eu
cd "$(dirname "$0")/.."
export LC_ALL=C PIP_DISABLE_PIP_VERSION_CHECK=1
venv=$PWD/.venv
build=build/venv
state=$venv/state

say() { echo "$*" >&2; }

identity() { "$1" -ISc 'import sys; print(sys.base_prefix, "%d.%d" % sys.version_info[:2])' 2>/dev/null; }

# Contents, not times: this also sees a file that was removed, or put back with its old date.
checkout_sum() {
    find eal ivshmem native pyproject.toml meson.build meson.options README.md LICENSE \
        -name __pycache__ -prune -o -type f -exec sha256sum {} + 2>/dev/null | sort
}

is_whole() {
    [ -f "$state/made" ] || return 1
    { read -r folder && read -r interpreter; } <"$state/made"
    [ "$folder" = "$PWD" ] && [ "$interpreter" = "$(identity "$venv/bin/python")" ] || return 1
    [ -z "${PYTHON:-}" ] || [ "$interpreter" = "$(identity "$PYTHON")" ]
}

make_venv() {
    python=${PYTHON:-python3}
    say "making .venv with $(command -v "$python")"
    rm -rf "$venv" "$build"
    "$python" -m venv "$venv"
    mkdir "$state"
    printf '%s\n' "$PWD" "$(identity "$venv/bin/python")" >"$state/made"
}

requirements() { # of the build, of the package, and of the extras named
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
    # --force-reinstall: the version stays the same from edit to edit. PATH: meson, ninja and cffi-gen-src.
    # Not -C for --config-settings: the pip of Debian 12 has only the long one.
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
is_whole && is_current "$sum" "$@" && exit

tools/needs.sh build
mkdir -p build
exec 9>build/lock
if command -v flock >/dev/null; then flock 9; fi # two makes at once
is_whole || make_venv
sum=$(checkout_sum)
install_requirements "$@"
is_current "$sum" "$@" || install_package "$sum"
