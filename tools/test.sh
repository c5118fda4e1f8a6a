#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# Run all tests: first the parallel tests, then the serial ones. Arguments are passed to pytest.
# With STRICT=1 a skipped or xfailed test fails the run.
set -u
cd "$(dirname "$0")/.." || exit
begin=$(date +%s)
workers=$(getconf _NPROCESSORS_ONLN)
[ "$workers" -le 4 ] || workers=4
case ${STRICT:-0} in 0 | '') ;; *) set -- --no-skips "$@" ;; esac

no_tests=5 # exit status of pytest if it selected no tests

.venv/bin/pytest -n "$workers" --dist loadgroup -m 'not serial' "$@"
parallel=$?
serial=$parallel
case $parallel in
0 | 1 | "$no_tests")
    .venv/bin/pytest -m serial "$@"
    serial=$?
    ;;
esac
echo "All tests took $(($(date +%s) - begin)) s."

[ $parallel = $no_tests ] && exit $serial
[ $serial = $no_tests ] && exit $parallel
[ $parallel = 0 ] || exit $parallel
exit $serial
