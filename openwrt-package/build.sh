#!/usr/bin/env bash
# Cross-builds the agent for OpenWrt, static musl binaries without Docker and without rustup's targets,
# and wraps them into packages:
#
#   openwrt-package/build.sh [TRIPLE...]      dist/TRIPLE/modem-upgrader-agent, dist/*.ipk, dist/*.apk
#
# Needs Debian's rustc-web, cargo-web and rust-web-src, whose standard library is built along, make, and
# python3-venv for zig (the linker) and cargo-zigbuild from PyPI. Two targets at a time, some five minutes
# each on two cores. With rustup, Docker and `cross` instead, see Cross.toml.
set -euo pipefail
cd "$(dirname "$0")/.."

die() { printf 'build.sh: %s\n' "$*" >&2; exit 1; }

# One binary serves every processor of its kind; opkg compares the names.
architectures() {
  case "$1" in
    aarch64-unknown-linux-musl) echo aarch64_cortex-a53 aarch64_cortex-a72 aarch64_generic ;;
    armv7-unknown-linux-musleabihf)
      echo arm_cortex-a7_neon-vfpv4 arm_cortex-a9_vfpv3-d16 arm_cortex-a15_neon-vfpv4 ;;
    mipsel-unknown-linux-musl) echo mipsel_24kc ;;
    x86_64-unknown-linux-musl) echo x86_64 ;;
    *) die "no OpenWrt architecture is known for $1" ;;
  esac
}

if [ $# -eq 0 ]; then
  set -- aarch64-unknown-linux-musl armv7-unknown-linux-musleabihf mipsel-unknown-linux-musl
fi
for triple in "$@"; do architectures "$triple" > /dev/null; done

target="${CARGO_TARGET_DIR:-$PWD/target}"
tools="${ZIGBUILD_TOOLS:-$target/tools/zigbuild}"
[ -x /usr/bin/rustc ] && [ -x /usr/bin/cargo ] || die "install rustc-web, cargo-web and rust-web-src"
if [ ! -x "$tools/bin/cargo-zigbuild" ] || [ ! -x "$tools/bin/python-zig" ]; then
  /usr/bin/python3 -m venv "$tools" || die "install python3-venv"
  # zig 0.16 and later replace parts of musl, its allocator among them, by their own.
  "$tools/bin/pip" install --quiet --disable-pip-version-check 'cargo-zigbuild==0.24.*' 'ziglang==0.15.2'
fi
export PATH="$tools/bin:$PATH" RUSTC=/usr/bin/rustc CARGO=/usr/bin/cargo
# Lets a stable compiler build its own library; nothing of ours uses unstable features.
export RUSTC_BOOTSTRAP=1
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct 2> /dev/null || echo 0)}"
export SOURCE_DATE_EPOCH

# What stands in for libunwind, where it is a file that the linker can be given: ARM unwinds in its own way, by
# other names, and has it as before. The path is relative: it must be the same wherever this is built.
no_unwind() {
  case "$1" in
    armv7-*) ;;
    mipsel-*) stand_in "$1" mipsel-linux-musleabi no-unwind ;;
    *) stand_in "$1" "${1%%-*}-linux-musl" no-unwind ;;
  esac
}

# Only aarch64 has tables for more speed to leave out, and one name to stand in for.
small_ring() {
  local version
  case "$1" in
    aarch64-*)
      version="$(sed -n '/^name = "ring"$/{n;s/^version = "\(.*\)"$/\1/p}' Cargo.lock)"
      stand_in "$1" aarch64-linux-musl small-ring "-DRING=ring_core_${version//./_}__"
      ;;
  esac
}

# stand_in TRIPLE MACHINE NAME FLAG...: the compiled file, as an argument for the linker.
stand_in() {
  local triple="$1" machine="$2" name="$3"
  shift 3
  mkdir -p "dist/$triple"
  python-zig cc -target "$machine" -Oz -fno-pic -g0 -ffunction-sections -ffile-prefix-map="$PWD=." "$@" \
    -c "openwrt-package/$name.c" -o "dist/$triple/$name.o" || return
  printf ' -C link-arg=dist/%s/%s.o' "$triple" "$name"
}

# Nothing of where it is built goes into the binary, and no tables for unwinding: a panic ends the
# process, and what it says does not need them. What is linked is at a fixed place, so code need not be
# ready for any other.
flags() {
  local registry="${CARGO_HOME:-$HOME/.cargo}/registry/src"
  printf '%s' "-C link-self-contained=no -C force-unwind-tables=no -C relocation-model=static"
  printf ' --remap-path-prefix=%s=%s' "$PWD" . "$(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust" rust
  local source
  for source in "$registry"/*; do printf ' --remap-path-prefix=%s=deps' "$source"; done
  no_unwind "$1" || return
  small_ring "$1" || return
  case "$1" in
    # Thumb-2, which every ARMv7 has: a quarter smaller than ARM's own instructions.
    armv7-*) printf ' -C target-feature=+thumb-mode' ;;
    # Tier 3: static only when told so. The path is relative as well.
    mips*) printf ' -C target-feature=+crt-static -C link-arg=-Wl,-T,openwrt-package/mips.ld' ;;
  esac
}

build() {
  local triple="$1" variable flags c_flags=-fno-pic
  flags="$(flags "$triple")" || return
  case "$triple" in aarch64-*) c_flags+=' -DOPENSSL_SMALL' ;; esac
  variable="CARGO_TARGET_$(printf '%s' "$triple" | tr 'a-z-' 'A-Z_')_RUSTFLAGS"
  # A directory of its own: another compiler than that of the tests, and no waiting for each other.
  env "$variable=$flags" "CFLAGS_${triple//-/_}=$c_flags" CARGO_TARGET_DIR="$target/cross/$triple" \
    cargo-zigbuild zigbuild --quiet --locked --package agent --bin modem-upgrader-agent \
    --profile small --target "$triple" -Z build-std=std,panic_abort \
    -Z build-std-features=optimize_for_size -Z profile-rustflags --config openwrt-package/small.toml
  install -D -m 0755 "$target/cross/$triple/$triple/small/modem-upgrader-agent" \
    "dist/$triple/modem-upgrader-agent"
}

/usr/bin/cargo fetch --quiet --locked
while [ $# -gt 0 ]; do
  build "$1" & first=$!
  second=
  if [ $# -gt 1 ]; then build "$2" & second=$!; fi
  wait "$first" || die "$1 was not built"
  if [ -n "$second" ]; then wait "$second" || die "$2 was not built"; fi
  for triple in "$1" ${second:+"$2"}; do
    binary="dist/$triple/modem-upgrader-agent"
    printf '%8s bytes  %s\n' "$(stat -c %s "$binary")" "$binary"
    # shellcheck disable=SC2046
    openwrt-package/package.sh "$binary" $(architectures "$triple")
  done
  shift "$((${second:+1} + 1))"
done
