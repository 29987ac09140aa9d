# shellcheck shell=bash
# What quickstart.sh and test.sh share: finding programs, and installing what is missing.

# Daemons live in sbin, which a user's PATH may leave out; rustup puts cargo under HOME.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:${CARGO_HOME:-$HOME/.cargo}/bin
export PATH

say() { printf '%s\n' "$*"; }
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# How to become root: nothing if we are, sudo if that works without a question or a terminal is
# there to ask on; the word "no" if there is no way.
root_by() {
  if [ "$(id -u)" -eq 0 ]; then
    printf ''
  elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
    printf 'sudo'
  else
    printf 'no'
  fi
}

# needs PROGRAM:PACKAGE ... installs the Debian packages of those programs that are not there. A
# word that begins with a slash is a file instead of a program.
needs() {
  local pair program packages=() by
  for pair in "$@"; do
    program=${pair%%:*}
    case $program in
      /*) [ -e "$program" ] || packages+=("${pair#*:}") ;;
      *) command -v "$program" >/dev/null || packages+=("${pair#*:}") ;;
    esac
  done
  [ ${#packages[@]} -gt 0 ] || return 0
  by=$(root_by)
  if [ "$by" = no ]; then
    die "missing, and neither root nor sudo to install it. Ask for: apt-get install ${packages[*]}"
  fi
  command -v apt-get >/dev/null || die "missing, and this is not Debian: ${packages[*]}"
  say "Installing: ${packages[*]}"
  # Name servers start on port 53 when installed. Ours run on ports of their own, so ask Debian
  # not to start any, unless this machine has a policy of its own.
  local policy=/usr/sbin/policy-rc.d ours=no status=0
  if [ ! -e "$policy" ]; then
    ours=yes
    printf '#!/bin/sh\nexit 101\n' | $by tee "$policy" >/dev/null
    $by chmod 755 "$policy"
  fi
  {
    $by env DEBIAN_FRONTEND=noninteractive apt-get update -qq &&
      $by env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        "${packages[@]}" >/dev/null
  } || status=$?
  [ "$ours" = no ] || $by rm -f "$policy"
  [ "$status" -eq 0 ] || die "apt-get could not install: ${packages[*]}"
}

# What building takes beside a Rust toolchain: aws-lc is C and assembler.
needs_to_build() {
  command -v cargo >/dev/null ||
    die "cargo is missing: install Rust from https://rustup.rs, or apt-get install cargo (1.90 or later)"
  needs cc:gcc /usr/include/stdio.h:libc6-dev
}
