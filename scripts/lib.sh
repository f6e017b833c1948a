# Sourced by the other scripts: the few words that they share.
# shellcheck shell=bash

# ROOT of the source tree, DATA of the server.
# shellcheck disable=SC2034
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck disable=SC2034
DATA=${PODLAB_DATA:-/var/lib/podlab}

say() { printf 'podlab: %s\n' "$*" >&2; }

# die says in one line what is missing and what to do.
die() { say "$*"; exit 1; }

need_linux() { [[ $(uname -s) == Linux ]] || die "needs Linux; this is $(uname -s). Use the Docker image there."; }
need_root() { [[ $EUID == 0 ]] || die "'$1' needs root: it makes namespaces and cgroups. Run it with sudo."; }

# server_pid prints the process id of the server of DATA, or nothing.
server_pid() {
  local pid
  pid=$(cat "$DATA/server.pid" 2>/dev/null) || return 0
  if [[ $(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null) == */podlab\ serve\ * ]]; then echo "$pid"; fi
}

# await_address PID FILE: waits until the server PID has printed its address
# to FILE. Fails when it ends before, or takes more than a minute.
await_address() {
  timeout 60 tail -n +1 -f --pid="$1" "$2" | grep -qm1 'podlab is at ' || [[ ${PIPESTATUS[1]} == 0 ]]
}

# version names the source as git knows it.
version() { git -C "$ROOT" describe --tags --always --dirty 2>/dev/null || echo unknown; }
