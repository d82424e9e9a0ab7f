#!/usr/bin/env bash
# Installs the built command below PREFIX: bin/adallava, its models in share/adallava/Models, licences in share/doc/adallava, completions for
# bash, zsh and fish where these shells look for them, and man pages. Run by `make install PREFIX=…`; DESTDIR is put before PREFIX, for packages.
#   scripts/install.sh PREFIX
# BUILD is the folder that the command was built in, .build/release if it is not set.
set -euo pipefail
[ $# = 1 ] && [ -n "$1" ] || { echo "install: expected the prefix, as in make install PREFIX=\$HOME/.local" >&2; exit 64; }
case $1 in /*) prefix=$1 ;; "~/"*) prefix=$HOME/${1#"~/"} ;; *) prefix=$PWD/$1 ;; esac
cd "$(dirname "$0")/.."
root=${DESTDIR:-}$prefix
command=${BUILD:-.build/release}/adallava
[ -x "$command" ] || { echo "install: $command is missing; make build makes it" >&2; exit 66; }

install -d "$root/bin" "$root/share/adallava"
# Renamed into place, so that a running command is not written over.
install -m 755 "$command" "$root/bin/.adallava.new"
mv -f "$root/bin/.adallava.new" "$root/bin/adallava"

# The models that ship: decoders, the tower beside them, and their card.
rm -rf "$root/share/adallava/Models.new"
install -d "$root/share/adallava/Models.new"
cp -R Models/scenes "$root/share/adallava/Models.new/scenes"
rm -rf "$root/share/adallava/Models"
mv "$root/share/adallava/Models.new" "$root/share/adallava/Models"

install -d "$root/share/doc/adallava"
install -m 644 LICENSE NOTICE THIRD-PARTY-NOTICES.md "$root/share/doc/adallava/"

completion() { # SHELL FOLDER NAME
  install -d "$root/share/$2"
  "$command" --generate-completion-script "$1" > "$root/share/$2/$3"
}
completion bash bash-completion/completions adallava
completion zsh zsh/site-functions _adallava
completion fish fish/vendor_completions.d adallava.fish

# swift-argument-parser's plugin makes the pages; a system without Swift still gets the rest.
# Pages of earlier builds would be installed too.
log=${BUILD:-.build/release}/manual.log
pages=.build/plugins/GenerateManual/outputs/adallava
rm -rf "$pages"
if "${SWIFT:-swift}" package generate-manual --multi-page > "$log" 2>&1; then
  install -d "$root/share/man/man1"
  # It writes pages for hidden commands too.
  hidden=adallava.neighbour
  rm -f "$pages/$hidden.1" "$root/share/man/man1/$hidden.1"
  for page in "$pages"/*.1; do
    sed "/^\.Xr $hidden /d" "$page" > "$root/share/man/man1/$(basename "$page")"
    chmod 644 "$root/share/man/man1/$(basename "$page")"
  done
else
  echo "install: no man pages were made; $log says why" >&2
fi

echo "installed $prefix/bin/adallava" >&2
case ":$PATH:" in *":$prefix/bin:"*) ;; *) echo "add $prefix/bin to PATH" >&2 ;; esac
