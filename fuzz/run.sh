#!/bin/bash
# Builds the fuzz targets and runs each for some processor seconds: run.sh [SECONDS] [TARGET...]
#
# Default: 60 seconds, all targets. On a busy machine a target runs longer, until it had
# its processor time. The exit code is not 0 if one of them crashes,
# hangs or takes too much memory; the input that did it is kept and named. It needs
# a stable compiler and c++: the coverage passes are asked for by their own flags,
# so neither a nightly compiler nor cargo-fuzz is wanted (both work too).
set -euo pipefail
cd "$(dirname "$0")"

seconds=${1:-60}
[ $# -gt 0 ] && shift
case $seconds in
'' | *[!0-9]*)
    echo "usage: run.sh [SECONDS] [TARGET...]" >&2
    exit 2
    ;;
esac
known=$(sed -n '/^\[\[bin\]\]/,/^name/s/^name = "\(.*\)"/\1/p' Cargo.toml)
# shellcheck disable=SC2206 # names have no spaces
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets <<<"$known"
for target in "${targets[@]}"; do
    grep -qx -- "$target" <<<"$known" || {
        echo "fuzz: there is no target $target; there are:" "${known//$'\n'/ }" >&2
        exit 2
    }
done
command -v c++ >/dev/null || {
    echo "fuzz: c++ is missing; install it with: apt-get install g++" >&2
    exit 1
}

work=${CARGO_TARGET_DIR:-$PWD/../target}/fuzz
mkdir -p "$work"
work=$(cd "$work" && pwd)
host=$(rustc -vV | sed -n 's/^host: //p')
flags=(
    --cfg fuzzing
    -Cpasses=sancov-module
    -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares
    -Ccodegen-units=1
)
# With --target the flags stay away from build scripts and macros.
build=(cargo build --quiet --release --target "$host" --target-dir "$work/build")
for target in "${targets[@]}"; do
    build+=(--bin "$target")
done
RUSTFLAGS="${flags[*]}" "${build[@]}"

# Runs $target for at most so many seconds of the clock and prints the processor seconds
# that it took, at least 1.
run_for() {
    local status=0 user system
    TIMEFORMAT='%U %S'
    { time "$work/build/$host/release/$target" "$corpus" "$work/seeds/$target" \
        -max_total_time="$1" -max_len=200000 -timeout=10 -rss_limit_mb=1024 \
        -print_final_stats=1 -artifact_prefix="$found/" >"$log" 2>&1; } 2>"$log.time" || status=$?
    read -r user system <"$log.time"
    echo $((${user%.*} + ${system%.*} + 1))
    return "$status"
}

failed=()
for target in "${targets[@]}"; do
    corpus=$work/corpus/$target
    found=$work/found/$target
    log=$work/$target.log
    mkdir -p "$corpus" "$found"
    rm -rf "$work/seeds/$target"
    ./seeds.sh "$target" "$work/seeds/$target"
    status=0 runs=0 spent=0
    while [ "$spent" -lt "$seconds" ] && [ "$status" -eq 0 ]; do
        # In user mode and in the kernel; the program's own messages are in the log.
        { taken=$(run_for $((seconds - spent))); } || status=$?
        ran=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        runs=$((runs + ${ran:-0}))
        spent=$((spent + taken))
    done
    if [ "$status" -eq 0 ]; then
        echo "fuzz: $target: $runs runs in $spent s, nothing found"
    else
        failed+=("$target")
        echo "fuzz: $target: FAILED" >&2
        grep -aE 'panicked|^==|SUMMARY|Test unit written|deadly|overflow' -A 3 "$log" | tail -n 40 >&2 || true
        echo "fuzz: the whole log is $log, the input is in $found" >&2
    fi
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "fuzz: ${#targets[@]} targets, failed: ${failed[*]}" >&2
    exit 1
fi
echo "fuzz: ${#targets[@]} targets, at least $seconds processor seconds each, no crash"
