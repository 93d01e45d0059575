#!/bin/sh
# The tests build one guest with componentize-js, which runs on Node.js and comes by npm.
set -e
if command -v node >/dev/null && command -v npm >/dev/null; then exit 0; fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "the tests need Node.js 18 or newer and npm: install them, then run this again" >&2
    exit 1
fi
echo "installing nodejs and npm for the tests"
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends nodejs npm
