#!/usr/bin/env bash
# Runs the tokens' tests (hsm/tests/pkcs11, and those of making and destroying keys) on another kind of token
# than SoftHSM, and says which of them were not run there, and why.
#
#   softhsm-tests/other-tokens.sh nss|tpm2|kryoptic
#
# Debian's packages: nss: libnss3-tools; tpm2: swtpm swtpm-tools libtpm2-pkcs11-tools opensc; kryoptic: libssl-dev
# libsqlite3-dev libclang-dev pkg-config opensc, and some minutes to build it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
kind=${1:-}
case $kind in
  nss | tpm2) ;;
  kryoptic)
    manifest=softhsm-tests/kryoptic/Cargo.toml
    cargo build --locked --quiet --manifest-path "$manifest"
    target=$(cargo metadata --manifest-path "$manifest" --format-version 1 --no-deps |
      sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
    export COUNTERSIGN_KRYOPTIC=$target/debug/libcountersign_kryoptic.so
    ;;
  *) echo "usage: $0 nss|tpm2|kryoptic" >&2 && exit 2 ;;
esac
log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
COUNTERSIGN_TOKENS=$kind cargo nextest run -p countersign-hsm --locked --no-fail-fast --color never \
  --config-file packaging/nextest.toml --success-output final \
  -E 'binary(pkcs11) or test(/^pkcs11::(making|destroying)/)' >"$log" 2>&1 || status=$?
[ "$status" -eq 0 ] || cat "$log"
skipped=$(grep -o 'NOT RUN on .*' "$log" | sort -u || true)
[ -z "$skipped" ] || printf '%s\n' "$skipped"
grep -E '^ *Summary \[' "$log" | tail -n 1
printf 'of these on %s not run: %s\n' "$kind" "$(printf '%s' "$skipped" | grep -c . || true)"
exit "$status"
