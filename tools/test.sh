#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# Runs all tests: those that may run side by side first, then those that need the machine for themselves.
# Arguments go to pytest. With STRICT=1 a skipped test, or one that is expected to fail, is a failure.
set -u
cd "$(dirname "$0")/.." || exit
begin=$(date +%s)
workers=$(getconf _NPROCESSORS_ONLN)
[ "$workers" -le 4 ] || workers=4
case ${STRICT:-0} in 0 | '') ;; *) set -- --no-skips "$@" ;; esac

nothing=5 # pytest's exit status when no test was selected

.venv/bin/pytest -n "$workers" --dist loadgroup -m 'not serial' "$@"
parallel=$?
serial=$parallel
case $parallel in
0 | 1 | "$nothing")
    .venv/bin/pytest -m serial "$@"
    serial=$?
    ;;
esac
echo "All tests took $(($(date +%s) - begin)) s."

[ $parallel = $nothing ] && exit $serial
[ $serial = $nothing ] && exit $parallel
[ $parallel = 0 ] || exit $parallel
exit $serial
