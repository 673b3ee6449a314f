#!/usr/bin/env bash
# newer_debian.sh DIR PACKAGE PROGRAM: a program of Debian's unstable suite in DIR/bin, from the mirror that apt knows. It brings its
# C library along in DIR, so that nothing of the machine changes. Fails where apt has no such mirror.
set -euo pipefail
target="$1" package="$2" program="$3"
mirror="$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -n 1)"
mkdir -p "$target"/{lists/partial,cache/archives/partial,debs,root,bin}
echo "deb $mirror unstable main" >"$target/sources.list"
apt=(apt-get -qq -o "Dir::Etc::sourcelist=$target/sources.list" -o Dir::Etc::sourceparts=/dev/null -o "Dir::State::lists=$target/lists"
  -o "Dir::Cache=$target/cache" -o Dir::State::status=/dev/null -o APT::Sandbox::User=root)
"${apt[@]}" update
(cd "$target/debs" && "${apt[@]}" download libc6 libgcc-s1 "$package")
for deb in "$target"/debs/*.deb; do dpkg-deb --extract "$deb" "$target/root"; done
loader="$(find "$target/root" -name 'ld-linux*.so.*' -print -quit)"
libraries="$(dirname "$(find "$target/root" -name 'libgcc_s.so.1' -print -quit)"):$(dirname "$loader")"
printf '#!/bin/sh\nexec "%s" --library-path "%s" "%s" "$@"\n' "$loader" "$libraries" "$target/root/usr/bin/$program" >"$target/bin/$program"
chmod +x "$target/bin/$program"
"$target/bin/$program" --version
