#!/bin/sh
# Finishes the node image: only makes sure that it works. $1 is the root of the image.
set -eu
chroot "$1" node -e 'if (6 * 7 !== 42) process.exit(1)'
