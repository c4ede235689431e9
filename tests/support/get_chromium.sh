#!/bin/sh
# Chromium and its driver, for the tests of the report's page: installed where they are missing and nobody need be asked
# (root on Debian or Ubuntu, as in containers of continuous integration). Never fails: the tests are skipped without it.
#   WSOLBENCH_BROWSER=no make test      do not even try
set -u

skip() {
    echo "browser tests will be skipped: $1"
    exit 0
}

driver() { command -v chromedriver >/dev/null 2>&1; }
browser() {
    for name in chromium chromium-browser google-chrome; do
        command -v "$name" >/dev/null 2>&1 && return 0
    done
    return 1
}

browser && driver && exit 0
[ "${WSOLBENCH_BROWSER:-}" = no ] && skip "no Chromium with its driver, and WSOLBENCH_BROWSER=no says not to install one"
[ "$(id -u)" = 0 ] || skip "no Chromium with its driver, and only root can install one: apt-get install chromium chromium-driver"
command -v apt-get >/dev/null 2>&1 || skip "no Chromium with its driver, and no apt-get to install one"

echo "installing Chromium and its driver for the browser tests"
log=$(mktemp) || skip "no Chromium with its driver, and no place for a log"
DEBIAN_FRONTEND=noninteractive
export DEBIAN_FRONTEND
install() {
    timeout -k 10 "$1" apt-get -o DPkg::Lock::Timeout=60 -o Acquire::Retries=2 -qq -y --no-install-recommends \
        install chromium chromium-driver >>"$log" 2>&1
}
if ! install 240; then # lists of packages may be missing or old
    timeout -k 10 120 apt-get -qq update >>"$log" 2>&1
    install 240
fi
if browser && driver; then
    rm -f "$log"
    exit 0
fi
why=$(grep -m 1 '^E: ' "$log" || tail -n 1 "$log")
rm -f "$log"
skip "Chromium could not be installed: ${why:-apt-get gave no reason}"
