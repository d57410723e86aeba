#!/bin/sh
# tfl.sh IMAGE STATE_DIR PORT: unpacks a .tar with information.contents and gives the directory to
# Telit's tfl. Install it as /etc/modem-upgrader/tfl.sh, mode 0755, for the profile telit-tfl.
# Exit status 64: nothing was flashed, and trying again would change nothing.
set -u
image=$1 state=$2 port=$3
# Memory, unless the profile's tool.environment names a directory on a disk.
package=${TFL_PACKAGE_DIR:-$state}/tfl-package

refuse() {
    echo "refused: $1"
    exit 64
}

size=$(wc -c < "$image") || refuse "the image cannot be read"
rm -rf "$package"
mkdir -p "$package" || refuse "there is no room for the package"
free=$(df -Pk "$package" | awk 'NR == 2 { print $4 }')
[ "$((size / 1024))" -lt "${free:-0}" ] || refuse "the package needs $size bytes"
# Names that lead out of the directory are refused before anything is unpacked.
tar -tf "$image" > "$state/names" || refuse "the image is no tar"
grep -qE '^/|(^|/)\.\.(/|$)' "$state/names" && refuse "the package leads out of its directory"
tar -xf "$image" -C "$package" || refuse "the image cannot be unpacked"
found=$(find "$package" -type f -name information.contents)
[ -n "$found" ] && [ "$(echo "$found" | wc -l)" = 1 ] \
    || refuse "the package must have one information.contents"
exec /usr/bin/tfl "${found%/*}" --port "$port"
