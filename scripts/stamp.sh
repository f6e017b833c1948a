# Sourced after lib.sh: steps that are done again only when what they read has
# changed, whatever the files' times say.
# shellcheck shell=bash

# step NAME OUTPUT INPUT… -- COMMAND…: runs COMMAND unless OUTPUT is there and
# was made from INPUT (files, or folders without node_modules) as it is now.
step() {
  local name=$1 output=$2 inputs=() sum
  shift 2
  while [[ $1 != -- ]]; do inputs+=("$1"); shift; done
  shift
  sum=$({
    echo "$*"
    find "${inputs[@]}" -name node_modules -prune -o -type f -print0 | sort -z | xargs -0 sha256sum
  } | sha256sum)
  [[ -e $output && -f .cache/$name && $(<".cache/$name") == "$sum" ]] && return
  "$@" || die "$name failed"
  mkdir -p .cache
  echo "$sum" >".cache/$name"
}

# reach COMMAND…: runs it, and when it fails for want of a registry says so in
# a last line.
reach() {
  local log rc=0
  log=$(mktemp)
  "$@" 2> >(tee "$log" >&2) || rc=$?
  if ((rc)) && grep -qE 'dial tcp|no such host|ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ETIMEDOUT|proxyconnect' "$log"; then
    say "no package registry in reach: '$1 $2' could not fetch what it needs"
  fi
  rm -f "$log"
  return "$rc"
}
