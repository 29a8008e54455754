#!/usr/bin/env bash
# A browser for tests/browser: one that is there, else Debian's, where that can be had. Never fails: without a
# browser these tests are skipped.
set -u

found() {
    if [ -n "${CHROMIUM:-}" ]; then
        [ -x "$CHROMIUM" ] && echo "$CHROMIUM"
        return
    fi
    for name in chromium chromium-browser google-chrome google-chrome-stable chrome chromium-headless-shell; do
        command -v "$name" && return
    done
    ls -d "${PLAYWRIGHT_BROWSERS_PATH:-$HOME/.cache/ms-playwright}"/chromium*-*/chrome-*/{chrome,headless_shell,chrome-headless-shell} 2>/dev/null | head -n 1
}

browser="$(found)"
if [ -z "$browser" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing Debian's Chromium for the browser tests"
    export DEBIAN_FRONTEND=noninteractive
    { timeout 300 apt-get update -qq && timeout 600 apt-get install -y -qq --no-install-recommends chromium; } \
        >/dev/null 2>&1 || echo "apt-get could not install it"
    browser="$(found)"
fi
if [ -n "$browser" ]; then
    echo "The browser tests use $browser"
else
    echo "The browser tests are skipped: there is no Chromium. Install one, or name it in CHROMIUM."
fi
exit 0
