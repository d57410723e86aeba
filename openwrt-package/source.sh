#!/usr/bin/env bash
# The sources that OpenWrt's buildroot fetches: agent and shared as a workspace of their own, whose lock file
# names what a router's daemon needs and nothing of the coordinator, in the versions of the whole.
#
#   openwrt-package/source.sh [DIRECTORY]      default: dist
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
root="$(dirname "$here")"
out="$(mkdir -p "${1:-$root/dist}" && cd "${1:-$root/dist}" && pwd)"
version="$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -n 1)"
name="modem-upgrader-agent-$version"
: "${SOURCE_DATE_EPOCH:=$(git -C "$root" log -1 --format=%ct 2> /dev/null || echo 0)}"

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
umask 022
mkdir "$work/$name"
cp -R "$root/agent" "$root/shared" "$root/LICENSE-MIT" "$root/LICENSE-APACHE" "$root/Cargo.lock" "$work/$name/"

# Without what only tests want.
sed -e 's/^members = .*/members = ["shared", "agent"]/' -e '/^coordinator = /d' "$root/Cargo.toml" \
  > "$work/$name/Cargo.toml"
for manifest in agent shared; do
  awk '/^\[/ { skip = ($0 == "[dev-dependencies]") } !skip' "$root/$manifest/Cargo.toml" \
    > "$work/$name/$manifest/Cargo.toml"
done
find "$work/$name" -name target -type d -prune -exec rm -rf {} +
find "$work/$name" -type f -exec chmod 0644 {} +
find "$work/$name" -type d -exec chmod 0755 {} +

# Leaves out of the lock file what nothing asks for any more; offline, no version can change.
(cd "$work/$name" && "${CARGO:-cargo}" metadata --quiet --offline --format-version 1 > /dev/null)

LC_ALL=C tar --format=gnu --numeric-owner --owner=0 --group=0 --sort=name --mtime="@$SOURCE_DATE_EPOCH" \
  -C "$work" -cf - "$name" | gzip -9 -n > "$out/$name.tar.gz"
printf '%8s bytes  %s\n' "$(stat -c %s "$out/$name.tar.gz")" "$out/$name.tar.gz"
