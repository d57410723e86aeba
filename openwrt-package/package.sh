#!/usr/bin/env bash
# Wraps a built binary into packages, without OpenWrt's build system: what is in them is what ../Makefile
# says, by way of the few lines in sdk/ that stand in for OpenWrt's.
#
#   openwrt-package/package.sh BINARY ARCHITECTURE... [-o DIRECTORY]
#
# Writes NAME_VERSION_ARCHITECTURE.ipk for opkg, and NAME-VERSION_ARCHITECTURE.apk where `apk mkpkg` of
# apk-tools 3 is at hand. The same input gives the same bytes, whoever runs it, wherever and whenever.
set -euo pipefail

here="$(cd "$(dirname "$0")" && pwd)"
out="$(dirname "$here")/dist"
die() { printf 'package.sh: %s\n' "$*" >&2; exit 1; }

words=()
while [ $# -gt 0 ]; do
  case "$1" in
    -o) out="$(mkdir -p "$2" && cd "$2" && pwd)"; shift ;;
    *) words+=("$1") ;;
  esac
  shift
done
[ "${#words[@]}" -ge 2 ] || die "usage: package.sh BINARY ARCHITECTURE... [-o DIRECTORY]"
binary="$(realpath "${words[0]}")"
architectures=("${words[@]:1}")
mkdir -p "$out"

export LC_ALL=C
: "${SOURCE_DATE_EPOCH:=$(git -C "$here" log -1 --format=%ct 2> /dev/null || echo 0)}"
export SOURCE_DATE_EPOCH
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
umask 022

install -D -m 0755 "$binary" "$work/built/bin/modem-upgrader-agent"
env -u MAKEFLAGS -u MAKELEVEL make -s -C "$here" -f Makefile TOPDIR="$here/sdk" INCLUDE_DIR="$here/sdk/include" \
  PKG_INSTALL_DIR="$work/built" OUT="$work" package
info() { cat "$work/info/$1"; }
name="$(info name)"
version="$(info version)-r$(info release)"

# conffiles that are no files of the package are kept by sysupgrade all the same: package-pack.mk
# does the same.
mkdir -p "$work/control" "$work/data/lib/upgrade/keep.d"
while read -r path; do
  [ -n "$path" ] || continue
  if [ -f "$work/data$path" ]; then
    printf '%s\n' "$path" >> "$work/control/conffiles"
  else
    printf '%s\n' "$path" >> "$work/data/lib/upgrade/keep.d/$name"
  fi
done < "$work/info/conffiles"

# archive DIRECTORY PATH...: to standard output.
archive() {
  local directory="$1"
  shift
  tar --format=gnu --numeric-owner --owner=0 --group=0 --sort=name --mtime="@$SOURCE_DATE_EPOCH" \
    -C "$directory" -cf - "$@"
}

# The same gzip format from a slower search; opkg has no other.
squeeze() { if command -v pigz > /dev/null; then pigz -11 -n; else gzip -9 -n; fi; }

script() { printf '#!/bin/sh\n%s\n' "$1" > "$2"; chmod 0755 "$2"; }

# The scripts that OpenWrt generates around a package's own.
# shellcheck disable=SC2016
ipk_scripts() {
  local prelude='[ -s ${IPKG_INSTROOT}/lib/functions.sh ] || exit 0
. ${IPKG_INSTROOT}/lib/functions.sh'
  script '[ "${IPKG_NO_SCRIPT}" = "1" ] && exit 0
'"$prelude"'
default_postinst $0 $@' "$work/control/postinst"
  script "$prelude"'
default_prerm $0 $@' "$work/control/prerm"
  install -m 0755 "$work/info/postinst" "$work/control/postinst-pkg"
  install -m 0755 "$work/info/prerm" "$work/control/prerm-pkg"
}

control() {
  local size
  size="$(archive "$work/data" . | wc -c)"
  printf 'Package: %s\nVersion: %s\nDepends: %s\n' "$name" "$version" "$(info depends | sed 's/ \+/, /g')"
  printf 'Source: %s\nSourceName: %s\n' "feeds/modem_upgrader/$name" "$name"
  printf 'License: %s\nLicenseFiles: %s\n' "$(info license)" "$(info license_files)"
  printf 'Section: %s\nSourceDateEpoch: %s\n' "$(info section)" "$SOURCE_DATE_EPOCH"
  printf 'URL: %s\nMaintainer: %s\n' "$(info url)" "$(info maintainer)"
  printf 'Architecture: %s\nInstalled-Size: %s\n' "$1" "$size"
  printf 'Description: %s\n' "$(info description | sed 's/^[[:space:]]*/ /' | sed '1s/^ //')"
}

ipk() {
  local file="$out/${name}_${version}_$1.ipk" outer="$work/outer"
  rm -rf "$outer"
  mkdir -p "$outer"
  control "$1" > "$work/control/control"
  chmod 0644 "$work/control/control" "$work/control/conffiles"
  cp "$work/data.tar.gz" "$outer/data.tar.gz"
  archive "$work/control" . | gzip -9 -n > "$outer/control.tar.gz"
  printf '2.0\n' > "$outer/debian-binary"
  # What is inside is compressed already.
  archive "$outer" ./debian-binary ./data.tar.gz ./control.tar.gz | gzip -9 -n > "$file"
  printf '%8s bytes  %s\n' "$(stat -c %s "$file")" "${file#"$PWD"/}"
}

# apk has no file of its own for these: default_postinst and default_prerm look in lib/apk/packages.
apk_root() {
  local list="$1/lib/apk/packages/$name"
  cp -a "$work/data" "$1"
  mkdir -p "$1/lib/apk/packages"
  (cd "$work/data" && find . ! -type d | sed 's/^\.//' | sort) > "$list.list"
  cp "$work/info/conffiles" "$list.conffiles"
  while read -r path; do
    printf '%s %s\n' "$path" "$(sha256sum < "$1$path" | cut -d' ' -f1)"
  done < "$work/control/conffiles" > "$list.conffiles_static"
  find "$1" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
}

# shellcheck disable=SC2016
apk_scripts() {
  local head='[ "${IPKG_NO_SCRIPT}" = "1" ] && exit 0
[ -s ${IPKG_INSTROOT}/lib/functions.sh ] || exit 0
. ${IPKG_INSTROOT}/lib/functions.sh
export root="${IPKG_INSTROOT}"
export pkgname="'"$name"'"'
  local own
  own="$(sed 1d "$work/info/postinst")"
  script "$head
add_group_and_user
default_postinst
$own" "$1/post-install"
  script "export PKG_UPGRADE=1
$head
add_group_and_user
default_postinst
$own" "$1/post-upgrade"
  # Its own first, so that nothing is disabled where it refuses.
  script '( '"$(sed 1d "$work/info/prerm")"' ) || exit 1
'"$head"'
default_prerm' "$1/pre-deinstall"
}

apk() {
  local file="$out/$name-${version}_$1.apk" root="$work/apk-root"
  rm -rf "$root" "$work/apk-scripts"
  mkdir -p "$work/apk-scripts"
  apk_root "$root"
  apk_scripts "$work/apk-scripts"
  command apk mkpkg --info "name:$name" --info "version:$version" --info "description:$(info title)" \
    --info "arch:$1" --info "license:$(info license)" --info "origin:$name" --info "url:$(info url)" \
    --info "maintainer:$(info maintainer)" --info "depends:$(info depends)" \
    --info "tags:openwrt:section=$(info section)" --script "post-install:$work/apk-scripts/post-install" \
    --script "post-upgrade:$work/apk-scripts/post-upgrade" \
    --script "pre-deinstall:$work/apk-scripts/pre-deinstall" --files "$root" --output "$file"
  printf '%8s bytes  %s\n' "$(stat -c %s "$file")" "${file#"$PWD"/}"
}

ipk_scripts
archive "$work/data" . | squeeze > "$work/data.tar.gz"
for architecture in "${architectures[@]}"; do ipk "$architecture"; done
if command apk mkpkg --help > /dev/null 2>&1; then
  # It takes owners as they are.
  [ "$(id -u)" = 0 ] || die "apk mkpkg wants root, or fakeroot"
  chown -R 0:0 "$work/data"
  for architecture in "${architectures[@]}"; do apk "$architecture"; done
else
  printf 'NO .apk: there is no apk-tools 3 (apk mkpkg) on this machine; the ipk is complete\n' >&2
fi
