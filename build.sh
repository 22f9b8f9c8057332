#!/usr/bin/env bash
# Builds, shows, tests and measures Deploy-OS. "./build.sh help" lists the verbs.
#
# This file owns the verbs, the packages, the programs and what stands in out/.
# The kernel is made by kernel-config/kernel.sh, the tests by tests/test.sh.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
OUT=$ROOT/out
CACHE=${DEPLOY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/deploy-os}
MUSL=x86_64-unknown-linux-musl
GNU=x86_64-unknown-linux-gnu
MIB=$((1024 * 1024))
# Budgets: what a client has to fetch, and hold in memory, before anything happens.
BOOT_BUDGET=$((24 * MIB))
IMAGER_BUDGET=$((8 * MIB))

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$CACHE/target}
export DEPLOY_OUT=$OUT DEPLOY_CACHE=$CACHE

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
note() { printf '   %s\n' "$*"; }
die() {
    printf '\nbuild.sh: %s\n' "$*" >&2
    exit 1
}

# Folders to remove, and steps with their seconds, when the script ends in whatever way.
CLEANUP=()
STEPS=()
on_exit() {
    [ ${#CLEANUP[@]} = 0 ] || rm -rf "${CLEANUP[@]}"
    [ -z "${SHOW_TIMES:-}" ] || print_times
}
trap on_exit EXIT

# Runs a command and notes how long it took: step NAME COMMAND...
step() {
    local name=$1 start=$SECONDS
    shift
    STEPS+=("$name=running")
    local index=$((${#STEPS[@]} - 1))
    "$@"
    STEPS[index]="$name=$((SECONDS - start))"
}

print_times() {
    local entry
    say "Where the time goes (seconds)"
    for entry in "${STEPS[@]}"; do
        printf '   %-34s %8s\n' "${entry%=*}" "${entry##*=}"
    done
    printf '   %-34s %8d\n' total "$SECONDS"
}

# shellcheck source=kernel-config/kernel.sh
source "$ROOT/kernel-config/kernel.sh"
# shellcheck source=tests/test.sh
source "$ROOT/tests/test.sh"

usage() {
    cat <<'TEXT'
./build.sh           build everything into out/
./build.sh demo      a virtual machine boots from the network, is backed up, and a blank
                     one is restored and boots; --keep leaves the server running
./build.sh test      lint, unit tests, budgets, reproducibility, loop and QEMU tests
                     (--long adds the slow ones)
./build.sh bench     speed and memory beside partclone, multicast beside udpcast
./build.sh fuzz      every fuzz target for a minute
./build.sh media     what media are made of: out/media, for imager media create
./build.sh iso       a CD image that starts on BIOS and UEFI, also from a stick by dd:
                     out/deploy-os.iso
./build.sh usb       the image of a stick with a partition for settings: out/deploy-os.img
./build.sh lint      formatting, clippy, dependency rule, shellcheck
./build.sh clean     removes out/ (caches stay; their folder is printed)
./build.sh help      this text

DEPLOY_CACHE=DIR     where kernel builds, cargo's target folder and test disks are kept
                     (default: ~/.cache/deploy-os)
DEPLOY_FIRMWARE=DIR  packs DIR (as /lib/firmware) into out/pxe/firmware.img, an extra
                     initramfs segment for cards that need blobs
TEXT
}

# --- what must be installed ---------------------------------------------------

BUILD_PACKAGES=(gcc make libc6-dev flex bison bc libelf-dev libssl-dev xz-utils zstd binutils
    musl-tools busybox-static ipxe util-linux ca-certificates grub-common grub-pc-bin grub-efi-amd64-bin)
TEST_PACKAGES=(qemu-system-x86 ovmf ipxe-qemu dnsmasq-base iproute2 nftables debootstrap e2fsprogs
    dosfstools mtools fdisk gdisk grub-pc-bin partclone shellcheck sqlite3
    ntfs-3g xfsprogs btrfs-progs exfatprogs exfat-fuse f2fs-tools lvm2 mdadm ldmtool squashfs-tools udftools xorriso
    genisoimage dmsetup openssl age qemu-utils libvhdi-utils libnbd-bin bzip2 lz4 xz-utils)
BENCH_PACKAGES=(partclone zstd e2fsprogs time cpio udpcast)

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Installs what is missing of the named packages, and says which.
need_packages() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} = 0 ] && return
    command -v apt-get >/dev/null || die "needs the Debian packages: ${missing[*]} (this system has no apt-get)"
    say "Installing Debian packages: ${missing[*]}"
    if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
        die "not root and no sudo; as root run: apt-get install ${missing[*]}"
    fi
    if [ -z "${APT_UPDATED:-}" ]; then
        as_root apt-get update -q >/dev/null || note "apt-get update failed; trying with the lists that are here"
        APT_UPDATED=1
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" \
        >"$CACHE/apt.log" 2>&1 || { tail -20 "$CACHE/apt.log" >&2; die "apt-get install failed (log: $CACHE/apt.log)"; }
}

need_cargo() {
    [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ] && PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
    command -v cargo >/dev/null && return
    if apt-cache show rustup >/dev/null 2>&1; then
        need_packages rustup
        rustup default stable
    fi
    command -v cargo >/dev/null || die "no cargo: Rust 1.88 or newer is needed.
  Debian 13 and later: apt-get install rustup && rustup default stable
  elsewhere: install rustup as its own site describes, then run this again"
}

# --- programs -----------------------------------------------------------------

# Sets TARGET, STATIC_FLAGS and STATIC_HOW. A machine without the musl target still
# gets static programs, from the GNU C library.
choose_target() {
    STATIC_FLAGS=
    if rustc --print target-libdir --target $MUSL 2>/dev/null | xargs -r test -d; then
        TARGET=$MUSL STATIC_HOW="musl"
    elif command -v rustup >/dev/null && timeout 180 rustup target add $MUSL >/dev/null 2>&1; then
        TARGET=$MUSL STATIC_HOW="musl (target added with rustup)"
    else
        TARGET=$GNU STATIC_HOW="static glibc (the musl target could not be added)"
        STATIC_FLAGS="-C target-feature=+crt-static"
    fi
    note "static programs by: $STATIC_HOW"
}

# A static program asks for no interpreter and no library.
prove_static() {
    if readelf -lW "$1" | grep -q INTERP; then die "$1 is not static: it names an interpreter"; fi
    if readelf -dW "$1" | grep -q NEEDED; then die "$1 is not static: it needs shared libraries"; fi
}

build_programs() {
    say "Programs"
    choose_target
    RUSTFLAGS="${RUSTFLAGS:-} $STATIC_FLAGS" cargo build --locked --release --target "$TARGET" \
        -p imager -p server --bins
    mkdir -p "$OUT/bin"
    local program
    for program in imager deployd deployctl; do
        # Cargo forgets to strip a program whose package has a profile of its own.
        install -s -m 755 "$CARGO_TARGET_DIR/$TARGET/release/$program" "$OUT/bin/$program"
        prove_static "$OUT/bin/$program"
    done
}

# --- initramfs and PXE tree -----------------------------------------------------

# The packer runs on this machine, so it is an ordinary (not static) program.
pack() {
    cargo run --locked --quiet --release -p initrd --bin pack-initramfs -- "$@"
}

build_initramfs() {
    say "Initramfs"
    mkdir -p "$OUT/pxe"
    pack base --init "$OUT/bin/imager" --busybox /bin/busybox --output "$OUT/pxe/initramfs.img"
    prove_static /bin/busybox
    rm -f "$OUT/pxe/firmware.img"
    if [ -n "${DEPLOY_FIRMWARE:-}" ]; then
        pack tree --from "$DEPLOY_FIRMWARE" --prefix lib/firmware --output "$OUT/pxe/firmware.img"
    fi
}

build_pxe() {
    local file
    for file in undionly.kpxe snponly.efi ipxe.efi; do
        install -m 644 "/usr/lib/ipxe/$file" "$OUT/pxe/$file"
    done
    build_local_disk
    # The other boot loader of UEFI machines.
    build_grub grubnetx64.efi netboot.grub efinet net http tftp smbios linux
}

# A GRUB that finds the boot loader of a UEFI machine's own disks.
build_local_disk() {
    build_grub local-disk.efi local-disk.grub
}

# build_grub FILE CONFIG MODULE...: a GRUB with its configuration inside.
build_grub() {
    local file=$1 config=$2
    shift 2
    grub-mkstandalone --format=x86_64-efi --output="$OUT/pxe/$file" --themes= --fonts= --locales= \
        --modules="part_gpt part_msdos fat $*" \
        --install-modules="normal configfile echo sleep test true search search_fs_file chain part_gpt part_msdos fat boot reboot $*" \
        "boot/grub/grub.cfg=$ROOT/bootloader-cfg/$config"
}

# GRUB for BIOS and UEFI, with its configuration in it: what it needs to find a medium, and
# to start what is on it. imager media create does the rest without any of these programs.
build_media() {
    say "Kit for media"
    local kit=$OUT/media config=$ROOT/bootloader-cfg
    local modules=(search search_fs_file iso9660 fat part_msdos part_gpt normal configfile
        linux echo serial terminal sleep minicmd test)
    rm -rf "$kit"
    mkdir -p "$kit/bios" "$kit/efi/BOOT"
    grub-mkimage -O i386-pc-eltorito -d /usr/lib/grub/i386-pc -p /deploy-os -c "$config/grub-early.cfg" \
        -o "$kit/bios/core.img" biosdisk "${modules[@]}"
    install -m 644 /usr/lib/grub/i386-pc/boot_hybrid.img "$kit/bios/mbr.img"
    grub-mkimage -O x86_64-efi -d /usr/lib/grub/x86_64-efi -p /deploy-os -c "$config/grub-early.cfg" \
        -o "$kit/efi/BOOT/BOOTX64.EFI" efi_gop efi_uga all_video "${modules[@]}"
    install -m 644 "$config/medium.cfg" "$config/efi.cfg" "$OUT/pxe/vmlinuz" "$OUT/pxe/initramfs.img" "$kit"
    if [ -e "$OUT/pxe/firmware.img" ]; then install -m 644 "$OUT/pxe/firmware.img" "$kit"; fi
    "$OUT/bin/imager" --version | cut -d' ' -f2 >"$kit/VERSION"
}

# A medium from the kit: make_medium NAME
make_medium() {
    "$OUT/bin/imager" media create --quiet --overwrite --kit "$OUT/media" "$OUT/$1"
}

# What stands in out/ beside our code, and where its source is.
write_notice() {
    local busybox ipxe grub
    grub=$(dpkg-query -W -f '${source:Package}=${source:Version}' grub-efi-amd64-bin)
    busybox=$(dpkg-query -W -f '${Version}' busybox-static)
    ipxe=$(dpkg-query -W -f '${Version}' ipxe)
    cat >"$OUT/SOURCES" <<TEXT
These files contain programs of others beside Deploy-OS itself:

pxe/vmlinuz        Linux, GPL-2.0. Source: Debian package $KERNEL_PACKAGE $KERNEL_VERSION
                   (apt-get install $KERNEL_PACKAGE); configuration: kernel-config/*.config,
                   complete in /proc/config.gz of the running kernel.
pxe/initramfs.img  bin/busybox: BusyBox, GPL-2.0. Source: apt-get source busybox=${busybox%+b*}
pxe/undionly.kpxe  iPXE, GPL-2.0 with the UBDL. Source: apt-get source ipxe=$ipxe
pxe/snponly.efi
pxe/ipxe.efi
pxe/grubnetx64.efi GRUB (as pxe/local-disk.efi), GPL-3.0 or later. Source: apt-get source $grub
media/bios/*       GRUB, GPL-3.0 or later. Source: apt-get source $grub
media/efi/*        (and in every medium that is made of them)
bin/*, /init       Deploy-OS, MIT OR Apache-2.0, with the libraries that Cargo.lock names
                   (cargo metadata lists their licences).
TEXT
}

# --- report ---------------------------------------------------------------------

size_of() { stat -c %s "$1"; }

report() {
    say "What was built"
    local file how
    printf '   %-26s %12s  %s\n' file bytes "how"
    for file in bin/imager bin/deployd bin/deployctl; do
        printf '   %-26s %12d  %s\n' "$file" "$(size_of "$OUT/$file")" "static: $STATIC_HOW"
    done
    for file in "$OUT"/pxe/*; do
        case ${file##*/} in
            vmlinuz) how="$KERNEL_PACKAGE $KERNEL_VERSION, $KERNEL_HOW" ;;
            initramfs.img) how="cpio, zstd -19: imager as /init, busybox" ;;
            firmware.img) how="extra segment from $DEPLOY_FIRMWARE" ;;
            local-disk.efi | grubnetx64.efi) how="Debian's GRUB" ;;
            *) how="Debian's iPXE" ;;
        esac
        printf '   %-26s %12d  %s\n' "pxe/${file##*/}" "$(size_of "$file")" "$how"
    done
    check_budgets || true
    note "sources and licences of what is not ours: out/SOURCES"
}

# Prints sizes against the budgets; fails past them.
check_budgets() {
    local boot imager bad=0
    boot=$(($(size_of "$OUT/pxe/vmlinuz") + $(size_of "$OUT/pxe/initramfs.img")))
    imager=$(size_of "$OUT/bin/imager")
    printf '   kernel + initramfs: %d of %d bytes (%d %%)\n' $boot $BOOT_BUDGET $((boot * 100 / BOOT_BUDGET))
    printf '   imager:             %d of %d bytes (%d %%)\n' "$imager" $IMAGER_BUDGET $((imager * 100 / IMAGER_BUDGET))
    [ $boot -le $BOOT_BUDGET ] || { note "OVER BUDGET: kernel + initramfs"; bad=1; }
    [ "$imager" -le $IMAGER_BUDGET ] || { note "OVER BUDGET: imager"; bad=1; }
    return $bad
}

# --- verbs ------------------------------------------------------------------------

# Two builds at once would write the same files: the second waits.
with_lock() {
    mkdir -p "$CACHE"
    exec 9>"$CACHE/lock"
    if ! flock -n 9; then
        note "another build holds $CACHE/lock; waiting"
        flock 9
    fi
    "$@"
    exec 9>&-
}

# Cargo tells stale artifacts by the times of source files, and takes those of another
# checkout for its own. So a checkout that finds the cache used by another one makes its
# files new: its crates are built again, what they stand on is not.
claim_target() {
    local owner=$CARGO_TARGET_DIR/checkout
    mkdir -p "$CARGO_TARGET_DIR"
    [ "$(cat "$owner" 2>/dev/null)" = "$ROOT" ] && return
    note "the build cache was used by another checkout: the crates of this one are built anew"
    find "$ROOT" -name out -prune -o -name target -prune -o -name .git -prune \
        -o -type f \( -name '*.rs' -o -name Cargo.toml -o -path '*/web/*' -o -path '*/bootloader-cfg/*' \) -print0 \
        | xargs -0 touch -c
    echo "$ROOT" >"$owner"
}

build_all() {
    claim_target
    step "packages to build with" need_packages "${BUILD_PACKAGES[@]}"
    need_cargo
    step "kernel" build_kernel
    step "programs (cargo, release)" build_programs
    step "initramfs" build_initramfs
    build_pxe
    step "kit for media" build_media
    write_notice
}

verb_build() {
    with_lock build_all
    report
}

verb_media() {
    verb_build
    note "media are made with: out/bin/imager media create"
}

verb_iso() {
    verb_build
    step "CD image" make_medium deploy-os.iso
    note "out/deploy-os.iso: burn it, or copy it to a stick with dd"
}

verb_usb() {
    verb_build
    step "stick image" make_medium deploy-os.img
    note "out/deploy-os.img: copy it to a stick with dd; out/bin/imager media create writes one directly"
}

verb_demo() {
    mkdir -p "$CACHE"
    need_packages "${TEST_PACKAGES[@]}"
    verb_build
    say "Demo"
    as_root_with_env cargo run --locked --quiet -p e2e --bin demo -- "$@"
}

verb_bench() {
    mkdir -p "$CACHE"
    need_packages "${BENCH_PACKAGES[@]}" "${TEST_PACKAGES[@]}"
    verb_build
    say "Benchmark"
    as_root_with_env cargo run --locked --release -p e2e --bin bench -- "$@"
}

# Namespaces, taps and loop devices want root; everything else of the build does not.
as_root_with_env() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo --preserve-env=PATH,HOME,CARGO_HOME,RUSTUP_HOME,CARGO_TARGET_DIR,DEPLOY_OUT,DEPLOY_CACHE,DEPLOY_LONG,CI "$@"
    fi
}

verb_clean() {
    rm -rf "$OUT"
    note "out/ is removed; caches stay in $CACHE (remove that folder to build from nothing)"
}

main() {
    cd "$ROOT"
    local verb=${1:-build}
    [ $# -gt 0 ] && shift
    case $verb in
        build) verb_build ;;
        demo | test | bench | fuzz | lint | clean | media | iso | usb) "verb_$verb" "$@" ;;
        help | -h | --help) usage ;;
        *)
            usage >&2
            exit 2
            ;;
    esac
}

main "$@"
