#!/usr/bin/env bash
# Installs what the build, the tests and the demo need on Debian; does nothing when all of it is there.
set -euo pipefail
packages=(pkg-config libjpeg-dev libpng-dev libwebp-dev libfreetype-dev libedit-dev fonts-noto-color-emoji fonts-dejavu-core fonts-liberation gnuplot-nox python3)
if ! command -v dpkg-query > /dev/null; then
  echo "setup: not a Debian system; needed: libjpeg, libpng, libwebp and freetype with headers, Noto Color Emoji, DejaVu, Liberation" >&2
  exit 0
fi
missing=()
for package in "${packages[@]}" "$@"; do
  dpkg-query -W -f '${Status}' "$package" 2> /dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0
as_root=(); [ "$(id -u)" = 0 ] || as_root=(sudo)
echo "setup: installing ${missing[*]}" >&2
"${as_root[@]}" apt-get update -qq >&2
DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
