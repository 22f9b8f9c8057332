# shellcheck shell=bash
# The kernel: fragments over the distribution's kernel source, cached by its inputs.
#
# Sourced by build.sh. Owns the recipe and the cache entry; does not own the options
# (the *.config files beside it) nor what is done with the result.

# Counts up when the commands below change in a way that changes the result.
KERNEL_RECIPE=1

# Sets KERNEL_PACKAGE, KERNEL_VERSION, KERNEL_TARBALL. The fragments are written for 6.1;
# a newer distribution's source is taken where there is no 6.1.
choose_kernel_source() {
    KERNEL_PACKAGE=linux-source-6.1
    if ! dpkg-query -W "$KERNEL_PACKAGE" >/dev/null 2>&1 && ! apt-cache show "$KERNEL_PACKAGE" >/dev/null 2>&1; then
        KERNEL_PACKAGE=$(apt-cache depends linux-source 2>/dev/null | awk '/Depends: linux-source-/{print $2; exit}')
        [ -n "$KERNEL_PACKAGE" ] || die "no kernel source package (linux-source) known to apt; run apt-get update"
        note "no linux-source-6.1 here; using $KERNEL_PACKAGE"
    fi
    need_packages "$KERNEL_PACKAGE"
    KERNEL_VERSION=$(dpkg-query -W -f '${Version}' "$KERNEL_PACKAGE")
    KERNEL_TARBALL=/usr/src/$KERNEL_PACKAGE.tar.xz
    [ -f "$KERNEL_TARBALL" ] || die "$KERNEL_PACKAGE is installed, but $KERNEL_TARBALL is missing"
}

kernel_key() {
    {
        cat "$ROOT"/kernel-config/*.config
        echo "$KERNEL_PACKAGE $KERNEL_VERSION recipe $KERNEL_RECIPE"
        gcc --version | head -1
    } | sha256sum | cut -c1-32
}

build_kernel() {
    say "Kernel"
    choose_kernel_source
    local entry
    entry=$CACHE/kernel/$(kernel_key)
    if [ -f "$entry/vmlinuz" ]; then
        KERNEL_HOW="from the cache"
        note "unchanged inputs: $entry"
    else
        KERNEL_HOW="built now"
        compile_kernel "$entry"
    fi
    mkdir -p "$OUT/pxe"
    install -m 644 "$entry/vmlinuz" "$OUT/pxe/vmlinuz"
}

# Builds in a folder of its own; the cache entry appears in one rename.
compile_kernel() {
    local entry=$1 work log
    mkdir -p "$CACHE/kernel"
    work=$(mktemp -d "$CACHE/kernel/building.XXXXXX")
    log=$CACHE/kernel/build.log
    CLEANUP+=("$work")
    note "unpacking $KERNEL_TARBALL"
    tar -xf "$KERNEL_TARBALL" -C "$work"
    mkdir "$work/obj" "$work/entry"
    configure_kernel "$work/$KERNEL_PACKAGE" "$work/obj" >"$log"
    note "compiling: about 26 minutes of processor time; log: $log"
    make_kernel "$work/$KERNEL_PACKAGE" "$work/obj" bzImage >>"$log" 2>&1 \
        || { tail -30 "$log" >&2; die "the kernel does not build (log: $log)"; }
    cp "$work/obj/arch/x86/boot/bzImage" "$work/entry/vmlinuz"
    cp "$work/obj/.config" "$work/entry/config"
    mv -T "$work/entry" "$entry"
    rm -rf "$work"
}

# Names and time inside the kernel are the package's, not this machine's.
make_kernel() {
    local source=$1 object=$2
    shift 2
    KBUILD_BUILD_USER=deploy KBUILD_BUILD_HOST=deploy \
        KBUILD_BUILD_TIMESTAMP="@$(stat -c %Y "$KERNEL_TARBALL")" \
        make -j"$(nproc)" -C "$source" O="$object" "$@"
}

# The fragments decide everything: what they do not name is off (allnoconfig).
configure_kernel() {
    local source=$1 object=$2 lost
    cat "$ROOT"/kernel-config/*.config >"$object/fragments"
    KCONFIG_ALLCONFIG=$object/fragments make_kernel "$source" "$object" allnoconfig
    lost=$(grep -h '^CONFIG_[A-Z0-9a-z_]*=' "$object/fragments" | grep -v '=n$' | grep -vxFf "$object/.config" || true)
    [ -z "$lost" ] && return
    # Silently lost options are how drivers go missing.
    if [ "$KERNEL_PACKAGE" = linux-source-6.1 ]; then
        die "the kernel's configuration does not take these options (a dependency is missing?):
$lost"
    fi
    printf 'options that %s does not take:\n%s\n' "$KERNEL_PACKAGE" "$lost" >&2
}
