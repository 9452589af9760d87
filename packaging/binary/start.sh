#!/bin/sh
# bioproxy for @SYSTEM@: a program in one file, which needs no Python. What follows after line @LINES@ is an archive.
# It is unpacked once, into the user's cache, and runs from there: later starts take no longer than an installed one's,
# there is one process, and its signals are its own. Delete ~/.cache/bioproxy/program to be rid of old versions.
set -eu
cache=${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/bioproxy/program
mkdir -p -m 700 "$cache" 2>/dev/null || { cache=${TMPDIR:-/tmp}/bioproxy-$(id -u); mkdir -p -m 700 "$cache"; }
if [ ! -O "$cache" ]; then
  echo "bioproxy: $cache belongs to another user; set XDG_CACHE_HOME to a folder of your own" >&2
  exit 1
fi
home=$cache/@NAME@
if [ ! -x "$home/bioproxy" ]; then
  new=$(mktemp -d "$cache/.new-XXXXXX")
  trap 'rm -rf "$new"' EXIT
  if ! tail -n +@FIRST@ "$0" | tar -xzf - -C "$new"; then
    echo "bioproxy: $0 cannot be unpacked into $cache: is the file whole, and the disk not full?" >&2
    exit 1
  fi
  [ -d "$home" ] || mv "$new" "$home"  # another start may have been faster
  rm -rf "$new"
  trap - EXIT
fi
exec "$home/bioproxy" "$@"
