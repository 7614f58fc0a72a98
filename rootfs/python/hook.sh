#!/bin/sh
# Finishes the python image: pip may install into it, and every module is compiled.
# $1 is the root of the image.
set -eu
root=$1

# The marker tells pip to leave the system's packages alone; here there is nobody else to manage them.
rm -f "$root"/usr/lib/python3*/EXTERNALLY-MANAGED

# Compiled by content, not by time stamp: the same packages then give the same digest, and no file is
# compared with its source when it is imported.
find "$root/usr/lib" -name '__pycache__' -prune -exec rm -rf {} +
chroot "$root" python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash \
    /usr/lib/python3 /usr/lib/python3.*/ > /dev/null || true
chroot "$root" python3 -c 'import numpy, pip'
