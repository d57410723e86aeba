#!/usr/bin/env bash
# Cross-builds the agent for OpenWrt: static musl binaries, without Docker and without rustup's
# targets, into dist/TRIPLE/modem-upgrader-agent.
#
#   openwrt-package/build.sh [TRIPLE...]
#
# Needs Debian's rustc-web, cargo-web and rust-web-src, whose standard library is built along, and
# python3-venv for zig (the linker) and cargo-zigbuild from PyPI. Some four minutes a target on two
# cores. With rustup, Docker and `cross` instead, see Cross.toml.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ $# -eq 0 ]; then
  set -- aarch64-unknown-linux-musl armv7-unknown-linux-musleabihf mipsel-unknown-linux-musl
fi

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}"
tools="$CARGO_TARGET_DIR/tools/zigbuild"
# Of its own: another compiler than that of the tests.
export CARGO_TARGET_DIR="$CARGO_TARGET_DIR/cross"

die() { printf 'build.sh: %s\n' "$*" >&2; exit 1; }

[ -x /usr/bin/rustc ] && [ -x /usr/bin/cargo ] || die "install rustc-web, cargo-web and rust-web-src"
if [ ! -x "$tools/bin/cargo-zigbuild" ] || [ ! -x "$tools/bin/python-zig" ]; then
  /usr/bin/python3 -m venv "$tools" || die "install python3-venv"
  "$tools/bin/pip" install --quiet --disable-pip-version-check 'cargo-zigbuild==0.24.*' 'ziglang==0.17.*'
fi
export PATH="$tools/bin:$PATH" RUSTC=/usr/bin/rustc CARGO=/usr/bin/cargo
# Lets a stable compiler build its own library; nothing of ours uses unstable features.
export RUSTC_BOOTSTRAP=1

build() {
  local triple="$1" flags='-C link-self-contained=no' variable
  case "$triple" in
    # Tier 3: static only when told so.
    mips*) flags+=' -C target-feature=+crt-static' ;;
  esac
  variable="CARGO_TARGET_$(printf '%s' "$triple" | tr 'a-z-' 'A-Z_')_RUSTFLAGS"
  env "$variable=$flags" cargo-zigbuild zigbuild --locked --package agent --bin modem-upgrader-agent \
    --profile small --target "$triple" -Z build-std=std,panic_abort
  install -D -m 0755 "$CARGO_TARGET_DIR/$triple/small/modem-upgrader-agent" \
    "dist/$triple/modem-upgrader-agent"
  printf '%s %s bytes\n' "dist/$triple/modem-upgrader-agent" \
    "$(stat -c %s "dist/$triple/modem-upgrader-agent")"
}

for triple in "$@"; do build "$triple"; done
