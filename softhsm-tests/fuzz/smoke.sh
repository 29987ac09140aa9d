#!/usr/bin/env bash
# Runs each fuzz target for a bounded time from its seed corpus; exits non-zero on a crash.
#
#   softhsm-tests/fuzz/smoke.sh [SECONDS]      each target for SECONDS (default 10)
#
# Targets are built by a plain `cargo build` on stable, with the coverage instrumentation that
# libFuzzer steers by but no sanitizer: the code under test has no unsafe block. For a longer hunt
# with AddressSanitizer, and for minimising what was found, use cargo-fuzz (cargo install cargo-fuzz):
#
#   cd softhsm-tests/fuzz && RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir . zone_tbs
#
# New inputs go to a temporary directory: the corpus in the repository stays small, and is written by
# `cargo run --release --bin seeds -- corpus`. A crash leaves its input in artifacts/.
set -euo pipefail

seconds=${1:-10}
case $seconds in *[!0-9]* | '') echo "usage: $0 [SECONDS]" >&2; exit 2 ;; esac
here=$(cd "$(dirname "$0")" && pwd)
cd "$here"
targets=(zone_tbs keeper_protocol dns_message transfer_framing ixfr stored_zone statement tsig zone_file configuration)

# With an explicit target, build scripts and macros are not instrumented.
host=$(rustc -vV | sed -n 's/^host: //p')
flags="--cfg fuzzing -Cpasses=sancov-module"
for option in level=4 inline-8bit-counters pc-table trace-compares; do
    flags="$flags -Cllvm-args=-sanitizer-coverage-$option"
done
RUSTFLAGS="$flags" cargo build --locked --release --target "$host" "${targets[@]/#/--bin=}"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p artifacts
failed=()
for target in "${targets[@]}"; do
    mkdir "$work/$target"
    # -timeout: one input of a bounded parser takes microseconds. -rss_limit: bounds hold.
    if "target/$host/release/$target" "$work/$target" "corpus/$target" \
        -max_total_time="$seconds" -timeout=5 -rss_limit_mb=1024 -max_len=8192 \
        -artifact_prefix=artifacts/"$target"- -print_final_stats=1 >"$work/$target.log" 2>&1; then
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/$target.log")
        covered=$(grep -o 'cov: [0-9]*' "$work/$target.log" | tail -1)
        echo "$target: ok, ${runs:-0} runs, ${covered:-no coverage}"
    else
        echo "$target: FAILED; the input is in softhsm-tests/fuzz/artifacts/" >&2
        tail -40 "$work/$target.log" >&2
        failed+=("$target")
    fi
done
[ ${#failed[@]} -eq 0 ]
