#!/usr/bin/env bash
# Everything that a bare Debian or Ubuntu machine needs for Midstep, and nothing twice: `make setup`.
#
#   system packages   through apt, only those whose program is missing; needs root, else it says which ones to ask for
#   .venv             python3 -m venv; requirements.lock installed when its hash differs from the installed one
#   midstep           installed editable; again when pyproject.toml changed
#   CRIU 4.1+         `midstep doctor --fix`; without it (no network, no root) jobs can only be frozen in place
#
# MIDSTEP_PYTHON chooses the interpreter (3.11 or newer), PIP_ARGS is handed to pip.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# program=package; a program that is there is never reinstalled
PROGRAMS="ip=iproute2 unshare=util-linux nsenter=util-linux flock=util-linux xz=xz-utils gpgv=gpgv ps=procps
          dpkg-deb=dpkg perl=perl-base awk=mawk"

missing_packages() {
    local pair missing=""
    for pair in $PROGRAMS; do
        PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%=*}" >/dev/null || missing="$missing ${pair##*=}"
    done
    [ -e /etc/ssl/certs/ca-certificates.crt ] || missing="$missing ca-certificates"
    if [ -z "${MIDSTEP_PYTHON:-}" ] && [ ! -x .venv/bin/python ]; then
        command -v python3 >/dev/null || missing="$missing python3"
        python3 -c 'import venv, ensurepip' 2>/dev/null || missing="$missing python3-venv"
    fi
    echo "$missing" | xargs -n1 2>/dev/null | sort -u | xargs
}

install_packages() {
    local missing
    missing=$(missing_packages)
    [ -n "$missing" ] || return 0
    command -v apt-get >/dev/null || die "missing: $missing; install them with this system's package manager, then run it again"
    [ "$(id -u)" = 0 ] || die "missing: $missing; ask root for: apt-get install $missing"
    say "apt-get install $missing"
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086  # a list of words
    apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1 ||
        { apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing >/dev/null; } ||
        die "apt-get could not install: $missing (its message is above)"
}

find_python() {
    local candidate
    for candidate in ${MIDSTEP_PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return 0
        fi
    done
    die "no Python 3.11 or newer with the venv module; install one, or name it: make setup MIDSTEP_PYTHON=/path/to/python3"
}

make_venv() {
    # a venv carries its own path: one that was copied or moved here is made anew
    if [ -x .venv/bin/python ] && [ "$(cat .venv/.midstep-root 2>/dev/null)" = "$root" ]; then return 0; fi
    local python
    python=$(find_python)
    say "new .venv with $("$python" --version)"
    rm -rf .venv
    "$python" -m venv .venv
    printf '%s' "$root" >.venv/.midstep-root
}

# step NAME FILES -- COMMAND...: run it when the files' hash is not the one it last succeeded with
step() {
    local name=$1 stamp=.venv/.midstep-$1 hash
    shift
    local files=()
    while [ "$1" != -- ]; do files+=("$1"); shift; done
    shift
    hash=$(cat "${files[@]}" | sha256sum | cut -d' ' -f1)
    [ "$(cat "$stamp" 2>/dev/null)" != "$hash" ] || return 0
    say "$name"
    "$@"
    printf '%s' "$hash" >"$stamp"
}

install_criu() {
    .venv/bin/python -m midstep.agent.doctor --fix ||
        say "no usable CRIU: jobs can be frozen in place, not moved (the reason is above; make setup tries again)"
}

install_packages
exec 9>"${TMPDIR:-/tmp}/midstep-setup-$(printf '%s' "$root" | cksum | cut -d' ' -f1).lock"
flock -w 900 9 || die "another set-up of this folder has held the lock for 15 minutes"
make_venv
pip=(.venv/bin/python -m pip --disable-pip-version-check)
# shellcheck disable=SC2086
step requirements.lock requirements.lock -- "${pip[@]}" install -qq ${PIP_ARGS:-} -r requirements.lock 9>&-
step editable pyproject.toml -- "${pip[@]}" install -qq --no-deps --no-build-isolation -e . 9>&-
install_criu 9>&-
say "done: $("$root/.venv/bin/python" --version), $(.venv/bin/python -c 'import midstep; print("midstep at", midstep.__path__[0])')"
