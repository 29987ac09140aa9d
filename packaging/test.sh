#!/usr/bin/env bash
# Everything that has to hold before a change goes in. Its last line says `N passed, N failed`,
# and it ends with 0 only if nothing failed. On a fresh Debian 12 with a Rust toolchain it installs
# the rest itself, with root or sudo.
#
# With --long, what counts mutations, random steps or kills runs with its whole numbers, which takes
# hours: it looks at COUNTERSIGN_LONG.
#
# As root the tests run keeper and daemon as two users (numeric ids, so none has to be made).
# Without root they run as one user, and the stories that need two say so and check what is left.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=needs.sh
. "$here/needs.sh"
cd "$here/.."
profile=default
case ${1:-} in
  '') ;;
  --long) profile=long && export COUNTERSIGN_LONG=1 ;;
  *) die "usage: test.sh [--long]" ;;
esac
export CARGO_TERM_COLOR=never
[ -z "${CI:-}" ] || export CARGO_INCREMENTAL=0

needs_to_build
needs named:bind9 named-compilezone:bind9-utils curl:curl dig:bind9-dnsutils dnssec-verify:bind9-utils nsd:nsd \
  unbound:unbound ldns-verify-zone:ldnsutils softhsm2-util:softhsm2 pkcs11-tool:opensc \
  openssl:openssl setpriv:util-linux mount:mount shellcheck:shellcheck c++:g++ \
  unshare:util-linux ssh-keygen:openssh-client python3:python3 \
  ods-enforcerd:opendnssec-enforcer-sqlite3 ods-signerd:opendnssec-signer sqlite3:sqlite3 \
  systemd-analyze:systemd knotd:knot kdig:knot-dnsutils drill:ldnsutils pdns_server:pdns-server \
  /usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql:pdns-backend-sqlite3 \
  certutil:libnss3-tools swtpm:swtpm swtpm_setup:swtpm-tools tpm2_ptool:libtpm2-pkcs11-tools \
  "/usr/lib/$(uname -m)-linux-gnu/libtpm2_pkcs11.so.1:libtpm2-pkcs11-1"
[ "$(id -u)" -eq 0 ] || say "NOTE: not root: keeper and daemon are one user in these tests."
# rustup's minimal profile leaves these out.
for component in fmt:rustfmt clippy:clippy; do
  cargo "${component%%:*}" --version >/dev/null 2>&1 || rustup component add "${component#*:}"
done
cargo nextest --version >/dev/null 2>&1 || {
  say "Installing cargo-nextest ..."
  cargo install --locked --quiet cargo-nextest || die "cargo-nextest could not be installed"
}

log=$(mktemp)
quick=$(mktemp -d)
trap 'rm -rf "$log" "$quick"' EXIT
passed=0 failed=0 flaky=0 failures=()

# step NAME COMMAND... counts as one.
step() {
  local name=$1
  shift
  say "═══ $name"
  if "$@"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    failures+=("$name")
  fi
}

# The tests count one by one, by nextest's own summary.
tests() {
  local summary count
  say "═══ cargo nextest run"
  cargo nextest run --config-file packaging/nextest.toml --profile "$profile" --workspace --locked \
    --no-fail-fast --color never 2>&1 | tee "$log" || true
  summary=$(grep -E '^ *Summary \[' "$log" | tail -n 1 || true)
  if [[ ! $summary =~ ([0-9]+)\ passed ]]; then
    failed=$((failed + 1))
    failures+=("cargo nextest run: no summary; see above")
    return
  fi
  passed=$((passed + BASH_REMATCH[1]))
  if [[ $summary =~ ([0-9]+)\ flaky ]]; then flaky=${BASH_REMATCH[1]}; fi
  for word in failed "timed out" "exec failed"; do
    if [[ $summary =~ ([0-9]+)\ $word ]]; then
      count=${BASH_REMATCH[1]}
      failed=$((failed + count))
      failures+=("$count tests $word; see above")
    fi
  done
}

step "cargo fmt" cargo fmt --all --check
step "shellcheck" shellcheck -x packaging/*.sh softhsm-tests/other-tokens.sh .ci/run
step "cargo clippy" cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
# The stories build these themselves if need be. From nothing that takes minutes, which would count
# against the first story's time. Apart from one another, as in softhsm-tests/src/binaries.rs.
build_programs() {
  cargo build --quiet --locked -p countersign-hsm --bin countersign-keeper --features test-clock &&
    cargo build --quiet --locked -p countersign-signer --bins &&
    cargo build --quiet --locked -p softhsm-tests --bins &&
    cargo build --quiet --locked -p countersign-p11-shim --lib
}
step "cargo build" build_programs
tests
step "quickstart.sh --once" bash packaging/quickstart.sh --once --dir "$quick"
if cargo deny --version >/dev/null 2>&1; then
  step "cargo deny" cargo deny --locked check bans licenses sources
else
  say "═══ cargo deny: SKIPPED, it is not installed (cargo install --locked cargo-deny)"
fi
step "tokens' tests on NSS softokn" softhsm-tests/other-tokens.sh nss
step "tokens' tests on a software TPM" softhsm-tests/other-tokens.sh tpm2
# kryoptic has to be built first, with OpenSSL's and SQLite's headers: minutes.
if [ "$profile" = long ]; then
  needs pkg-config:pkg-config /usr/include/openssl/ssl.h:libssl-dev /usr/include/sqlite3.h:libsqlite3-dev \
    /usr/bin/clang:clang
  step "tokens' tests on kryoptic" softhsm-tests/other-tokens.sh kryoptic
else
  say "═══ tokens' tests on kryoptic: under --long"
fi
step "fuzz targets, a short run of each" softhsm-tests/fuzz/smoke.sh

say ""
[ "$flaky" -eq 0 ] || say "NOTE: $flaky of them passed only when tried again; look for FLAKY above"
[ ${#failures[@]} -eq 0 ] || printf 'failed: %s\n' "${failures[@]}"
say "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
