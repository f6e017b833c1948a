#!/bin/sh
# Runs the scripts of /docker-entrypoint.d, in order of their names, before the
# server, as the official image does.
set -e
if [ "$1" = nginx ]; then
  for f in /docker-entrypoint.d/*; do
    [ -x "$f" ] || continue
    case $f in
      *.envsh) . "$f" ;;
      *.sh) "$f" ;;
    esac
  done
fi
exec "$@"
