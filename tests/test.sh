# shellcheck shell=bash
# The verbs test, lint and fuzz. Sourced by build.sh.
#
# Owns what is checked and in which order; the tests themselves are the crates' own,
# and those of tests/ (crate e2e), which use what build.sh put into out/.

MAX_LINES=500

verb_test() {
    local long=
    case ${1:-} in
        "") ;;
        --long) long=1 ;;
        *) die "test knows only --long" ;;
    esac
    SHOW_TIMES=1
    mkdir -p "$CACHE"
    step "packages to test with" need_packages "${TEST_PACKAGES[@]}"
    verb_build
    step "lint" lint_all
    step "budgets" check_budgets
    step "initramfs is reproducible" check_reproducible
    say "Tests of the crates"
    step "cargo test" as_root_with_env cargo test --locked --workspace --exclude e2e
    say "Tests in virtual machines"
    # One after another: a machine with two cores runs one emulated guest well, not three.
    export DEPLOY_LONG=$long
    step "QEMU tests" as_root_with_env cargo test --locked -p e2e -- --test-threads=1 --nocapture
}

verb_lint() {
    mkdir -p "$CACHE"
    need_packages "${BUILD_PACKAGES[@]}" shellcheck
    need_cargo
    claim_target
    lint_all
}

lint_all() {
    say "Lint"
    cargo fmt --all --check
    cargo clippy --locked --quiet --workspace --all-targets -- -D warnings
    shellcheck -x build.sh .ci/run
    lint_dependencies
    lint_unsafe
    lint_lengths
    note "clean: formatting, clippy, shellcheck, dependency rule, unsafe, file lengths"
}

# Every crate that CRATE's shipped code stands on, directly or not.
stands_on() {
    cargo tree --locked -p "$1" -e normal --prefix none --format '{p}' | cut -d' ' -f1 | sort -u
}

forbid() {
    local crate=$1 found
    shift
    found=$(stands_on "$crate" | grep -xF "$(printf '%s\n' "$@")" || true)
    [ -z "$found" ] || die "dependency rule: $crate must not stand on: $found"
}

# The rule of ARCHITECTURE.md: maps know no sockets, messages no disks, images neither,
# and nothing imports upward.
lint_dependencies() {
    local sockets=(socket2 tokio ureq rustls hyper axum) upward=(imager server testkit e2e)
    forbid diskmap "${sockets[@]}" blockdev image wire "${upward[@]}"
    forbid foreign "${sockets[@]}" blockdev image wire "${upward[@]}"
    forbid wire blockdev diskmap image "${upward[@]}"
    forbid image "${sockets[@]}" blockdev wire "${upward[@]}"
    forbid keyfile "${sockets[@]}" blockdev diskmap image wire "${upward[@]}"
    forbid medium "${sockets[@]}" blockdev diskmap image "${upward[@]}"
    forbid multicast "${sockets[@]}" blockdev diskmap image wire "${upward[@]}"
    forbid blockdev "${sockets[@]}" diskmap image wire "${upward[@]}"
    forbid imager server testkit e2e axum sqlx
    forbid server imager testkit e2e blockdev diskmap
}

# unsafe_code is forbidden by the workspace's lints; only blockdev has lints of its own.
lint_unsafe() {
    local manifest
    for manifest in imager/Cargo.toml server/Cargo.toml crates/*/Cargo.toml initrd/Cargo.toml tests/Cargo.toml; do
        [ "$manifest" = crates/blockdev/Cargo.toml ] && continue
        grep -A1 -xF '[lints]' "$manifest" | grep -qxF 'workspace = true' \
            || die "$manifest does not take the workspace's lints, which forbid unsafe code"
    done
}

lint_lengths() {
    local long
    long=$(git ls-files -z -- '*.rs' '*.sh' build.sh | xargs -0 wc -l \
        | awk -v max=$MAX_LINES '$2 != "total" && $1 > max {print $2 ": " $1 " lines"}')
    [ -z "$long" ] || die "files over $MAX_LINES lines (what is the second thing in them?):
$long"
}

check_reproducible() {
    local again=$OUT/initramfs.again
    pack base --init "$OUT/bin/imager" --busybox /bin/busybox --output "$again"
    cmp "$again" "$OUT/pxe/initramfs.img" || die "two packings of the same initramfs differ"
    rm -f "$again"
    note "the initramfs packed twice: the same $(size_of "$OUT/pxe/initramfs.img") bytes"
}

# Seconds for each target.
FUZZ_SECONDS=${FUZZ_SECONDS:-60}

verb_fuzz() {
    mkdir -p "$CACHE"
    need_packages "${BUILD_PACKAGES[@]}" g++ "${TEST_PACKAGES[@]}"
    need_cargo
    claim_target
    fuzz/run.sh "$FUZZ_SECONDS" "$@"
}
