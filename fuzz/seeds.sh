#!/bin/bash
# Makes small seeds for a target by recipe: seeds.sh TARGET FOLDER.
#
# A target without a function here starts from nothing, which is fine.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
target=$1
out=$2
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

need() {
    command -v "$1" >/dev/null || {
        echo "fuzz: $1 is missing; install it with: apt-get install $2" >&2
        exit 1
    }
}

# image NAME KIB: an empty file
image() {
    rm -f "$work/$1"
    truncate -s "$2K" "$work/$1"
}

# keep NAME KNOBS: the file behind one byte of knobs (octal), see disk.rs
keep() {
    { printf "\\$2"; cat "$work/$1"; } >"$out/$1"
}

seed_table() {
    need sgdisk gdisk
    need sfdisk fdisk
    image gpt 64
    sgdisk -a 1 -n 1:34:+4K -n 5:60:+4K -A 5:set:2 "$work/gpt" >/dev/null
    keep gpt 0
    { printf '\040'; cat "$work/gpt"; } >"$out/gpt-repaired"
    image mbr 64
    printf 'label: dos\nstart=4, size=8, type=83\nstart=20, size=80, type=5\nstart=22, size=8\nstart=40, size=8, type=82\n' |
        sfdisk -q "$work/mbr" >/dev/null
    keep mbr 0
}

seed_ext() {
    need mke2fs e2fsprogs
    local i=0 options
    for options in "-t ext2 -b 1024" "-t ext2 -b 1024 -O meta_bg,^resize_inode" \
        "-t ext4 -b 1024 -O ^has_journal,^metadata_csum" "-t ext4 -b 1024 -O ^has_journal" \
        "-t ext4 -b 1024 -O ^has_journal,^metadata_csum,bigalloc,^resize_inode -C 4096" \
        "-t ext2 -b 2048"; do
        i=$((i + 1))
        image "ext$i" 192
        # shellcheck disable=SC2086
        mke2fs -q -F -N 16 $options "$work/ext$i"
        keep "ext$i" 0
    done
    # With a journal the least is larger; most of it is a hole behind the seed.
    image ext-journal 4096
    mke2fs -q -F -N 16 -t ext3 -b 1024 -J size=1 -O ^resize_inode "$work/ext-journal"
    truncate -s 96K "$work/ext-journal"
    keep ext-journal 4
}

# A journal as the jbd2 target reads it: its superblock, then two transactions with a new
# bitmap, a revoke block, and one without an end.
seed_jbd2() {
    need debugfs e2fsprogs
    local version place knobs
    for version in "" "-c -v 1" "-c -v 2" "-c -v 3"; do
        image journal 4096
        mke2fs -q -F -N 16 -t ext3 -b 1024 -J size=1 "$work/journal"
        head -c 1024 /dev/zero | tr '\0' '\377' >"$work/block"
        printf 'jo %s\njw -b 3 %s\njw -b 2,3,200 %s\njw -r 200,201\njw -c -b 1 %s\njc\n' \
            "$version" "$work/block" "$work/block" "$work/block" |
            debugfs -w -f - "$work/journal" >/dev/null 2>&1
        place=$(debugfs -c -R 'bmap <8> 0' "$work/journal" 2>/dev/null)
        dd if="$work/journal" of="$work/log" bs=1024 skip="$place" count=24 status=none
        for knobs in 000 001 002 003; do
            {
                printf "\\$knobs"
                head -c 16 "$work/log"
                # As long as the journal of the target.
                printf '\000\000\000\140'
                tail -c +21 "$work/log"
            } >"$out/journal${version##* }-$knobs"
        done
    done
}

seed_fat() {
    need mkfs.fat dosfstools
    image fat12 64
    mkfs.fat -F 12 "$work/fat12" >/dev/null
    keep fat12 0
    for bits in 16 32; do
        image "fat$bits" $((40 << 10))
        mkfs.fat -F "$bits" -s $((bits == 16 ? 4 : 1)) "$work/fat$bits" >/dev/null
        truncate -s 64K "$work/fat$bits"
        keep "fat$bits" 4
    done
}

seed_exfat() {
    need mkfs.exfat exfatprogs
    # Only the front of each is the seed; what is behind it is a hole.
    image exfat 1024
    mkfs.exfat -c 512 -b 4K "$work/exfat" >/dev/null
    truncate -s 96K "$work/exfat"
    keep exfat 4
    image exfat-packed 2048
    mkfs.exfat -c 4K -b 8K --pack-bitmap -L seed "$work/exfat-packed" >/dev/null
    truncate -s 96K "$work/exfat-packed"
    keep exfat-packed 4
}

# Superblock, checkpoint and both copies of the first segment entries, one after the other.
seed_f2fs() {
    need mkfs.f2fs f2fs-tools
    local i=0 options
    for options in "" "-O extra_attr,sb_checksum" "-i"; do
        i=$((i + 1))
        image f2fs $((100 << 10))
        # shellcheck disable=SC2086
        mkfs.f2fs -q $options "$work/f2fs" >/dev/null
        {
            dd if="$work/f2fs" bs=1024 skip=1 count=3 status=none
            dd if="$work/f2fs" bs=4096 skip=512 count=8 status=none
            dd if="$work/f2fs" bs=4096 skip=1536 count=2 status=none
        } >"$out/f2fs$i"
    done
}

# pages IMAGE: the superblock and the tree nodes that the btrfs target wants, as it reads
# them; in what mkfs.btrfs makes without copies, logical addresses are places.
pages() {
    local image=$work/$1 size at
    size=$(btrfs inspect-internal dump-super "$image" | sed -n 's/^nodesize[[:space:]]*//p')
    {
        printf '\004'
        page "$image" 16
        for at in $(btrfs inspect-internal dump-tree "$image" |
            sed -nE 's/^(leaf|node) ([0-9]*) .* owner (ROOT|CHUNK|EXTENT|DEV|TREE)_.*/\2/p' | sort -nu); do
            seq $((at / 4096)) $(((at + size) / 4096 - 1)) |
                while read -r at; do page "$image" "$at"; done
        done
    } >"$out/$1"
}

# page IMAGE NUMBER
page() {
    le "$2" 2
    dd if="$1" bs=4096 skip="$2" count=1 status=none
}

seed_btrfs() {
    need mkfs.btrfs btrfs-progs
    local i=0 options
    for options in "-M -n 4096" "-M -n 4096 -O ^skinny-metadata,^no-holes -R ^free-space-tree" \
        "-m single -d single -n 8192"; do
        i=$((i + 1))
        image "btrfs$i" $((64 << 10))
        # shellcheck disable=SC2086
        mkfs.btrfs -q $options "$work/btrfs$i" 2>/dev/null >&2
        pages "btrfs$i"
    done
    # Many tiny files make trees of two levels.
    mkdir "$work/tree"
    for i in $(seq 120); do printf '%2000s' "$i" >"$work/tree/$i"; done
    image btrfs-deep $((64 << 10))
    mkfs.btrfs -q -M -n 4096 --rootdir "$work/tree" "$work/btrfs-deep" 2>/dev/null >&2
    pages btrfs-deep
    # A log is left behind only by a kernel, which only root can ask for it.
    [ "$(id -u)" = 0 ] || return 0
    mkdir "$work/mount"
    trap 'umount "$work/mount" 2>/dev/null || true; rm -rf "$work"' EXIT
    cp "$work/btrfs1" "$work/btrfs-log"
    mount -o loop,commit=300 "$work/btrfs-log" "$work/mount"
    echo now >"$work/mount/now"
    dd if=/dev/zero of="$work/mount/data" bs=64K count=1 conv=fsync status=none
    sync "$work/mount/now"
    cp "$work/btrfs-log" "$work/logged"
    umount "$work/mount"
    pages logged
}

seed_swap() {
    need mkswap util-linux
    image swap 64
    mkswap -q -L spare "$work/swap"
    keep swap 0
}

seed_read_only() {
    need genisoimage genisoimage
    need mksquashfs squashfs-tools
    need mkudffs udftools
    mkdir "$work/tree"
    echo text >"$work/tree/file"
    genisoimage -quiet -no-pad -R -J -o "$work/iso" "$work/tree"
    keep iso 0
    mksquashfs "$work/tree" "$work/squashfs" -quiet -no-progress >/dev/null
    keep squashfs 4
    image udf 4096
    mkudffs -b 512 "$work/udf" >/dev/null
    truncate -s 180K "$work/udf"
    keep udf 4
}

# One group, of which the seed holds the start. The log lies further behind, in zeros:
# without checksums that makes a clean one. Two more seeds have a log of 64 KiB in reach,
# one with the record of an unmount, one with a change of the superblock.
seed_xfs() {
    need mkfs.xfs xfsprogs
    need xfs_db xfsprogs
    local i=0 options start block blocks
    for options in "-m crc=0" "-m crc=0 -b size=512" "-m crc=0 -l version=1" \
        "" "-b size=1024 -m rmapbt=1"; do
        i=$((i + 1))
        image "xfs$i" $((32 << 10))
        # shellcheck disable=SC2086
        mkfs.xfs -q -f --unsupported -d agcount=1 $options "$work/xfs$i" >/dev/null 2>&1
        start=$(xfs_db -r -c 'sb 0' -c 'p logstart' "$work/xfs$i" | cut -d= -f2)
        start=$(xfs_db -r -c "convert fsb $((start)) byte" "$work/xfs$i" | sed 's/.*(\(.*\))/\1/')
        block=$(xfs_db -r -c 'sb 0' -c 'p blocksize' "$work/xfs$i" | cut -d= -f2)
        dd if="$work/xfs$i" of="$work/log" bs=512 skip=$((start / 512)) count=128 status=none
        truncate -s 32K "$work/xfs$i"
        keep "xfs$i" 204
        truncate -s 64K "$work/xfs$i"
        blocks=$((65536 / block))
        { be 0 4; be "$blocks" 4; } | overwrite "xfs$i" 48
        be "$blocks" 4 | overwrite "xfs$i" 96
        cat "$work/xfs$i" "$work/log" >"$work/xfs$i-unmounted"
        keep "xfs$i-unmounted" 204
        xfs_change "$work/xfs$i" >"$work/log"
        truncate -s 64K "$work/log"
        cat "$work/xfs$i" "$work/log" >"$work/xfs$i-changed"
        keep "xfs$i-changed" 204
    done
}

# xfs_change IMAGE: a log whose only record is a transaction with the superblock.
xfs_change() {
    # Magic number, cycle, version, length, number, tail, checksum, previous, operations,
    # the first word of the data, format, UUID.
    printf '\376\355\272\276'
    be 1 4; be 2 4; be 512 4; be 1 4; be 0 4; be 1 4; be 0 4; be 0 4; be 0 4; be 5 4; be 7 4
    zeros 252
    be 1 4
    dd if="$1" bs=1 skip=32 count=16 status=none
    be 32768 4
    zeros 188
    # Start; header; a buffer of one sector at 0 with its first 128 bytes; commit.
    be 1 4; be 0 4; printf '\151\001\000\000'
    be 7 4; be 16 4; printf '\151\000\000\000NART'
    le 40 4; le 7 4; le 1 4
    be 7 4; be 24 4; printf '\151\000\000\000\074\022'
    le 2 2; le 0 2; le 1 2; le 0 4; le 0 4; le 1 4; le 1 4
    be 7 4; be 128 4; printf '\151\000\000\000'
    dd if="$1" bs=128 count=1 status=none
    be 7 4; be 0 4; printf '\151\002\000\000'
}

# overwrite IMAGE OFFSET: by standard input.
overwrite() {
    dd of="$work/$1" bs=1 seek="$2" conv=notrunc status=none
}

# A number as 4 or fewer big-endian bytes.
be() {
    local value=$1 i
    for ((i = $2 - 1; i >= 0; i--)); do
        printf "\\x$(printf '%02x' $((value >> (8 * i) & 255)))"
    done
}

# A number as 4 or 2 little-endian bytes.
le() {
    local value=$1 i
    for ((i = 0; i < $2; i++)); do
        printf "\\x$(printf '%02x' $((value >> (8 * i) & 255)))"
    done
}

# The sectors of a volume that are neither empty, nor of the log, nor of the table of
# capital letters, as the ntfs target reads them.
seed_ntfs() {
    need mkntfs ntfs-3g
    local knobs sector line letters
    image ntfs 2048
    mkntfs -F -q -Q -c 512 -L seed "$work/ntfs" 2>/dev/null
    letters=$(ntfsinfo -v -i 10 "$work/ntfs" | awk '/LCN/ { getline; print $2 }')
    sector=-1
    od -v -An -t x1 -w512 "$work/ntfs" | while read -r line; do
        sector=$((sector + 1))
        [[ $line =~ ^[0\ ]+$ || $line =~ ^[f\ ]+$ ]] && continue
        [ "$sector" -ge $((letters)) ] && [ "$sector" -lt $((letters + 256)) ] && continue
        le "$sector" 4
        le 512 2
        printf '%b' "\\x${line// /\\x}"
    done >"$work/parts"
    for knobs in 100 140; do
        { printf "\\$knobs"; cat "$work/parts"; } >"$out/empty-$knobs"
    done
}

# parts IMAGE KNOBS: the sectors of a disk that are neither empty nor of an empty log, as the
# files target reads them
parts() {
    local size sector=-1 line
    size=$(stat -c %s "$work/$1")
    {
        printf "\\$2"
        le $((size / 1024)) 2
        od -v -An -t x1 -w512 "$work/$1" | while read -r line; do
            sector=$((sector + 1))
            [[ $line =~ ^[0\ ]+$ || $line =~ ^[f\ ]+$ ]] && continue
            le "$sector" 4
            le 512 2
            printf '%b' "\\x${line// /\\x}"
        done
    } >"$out/$1"
}

seed_files() {
    need mke2fs e2fsprogs
    need mkntfs ntfs-3g
    need ntfscp ntfs-3g
    need mkfs.fat dosfstools
    need mcopy mtools
    local i=0 options bits
    mkdir -p "$work/root/folder"
    seq 1 2000 >"$work/root/folder/file"
    ln -s ../folder "$work/root/folder/link"
    truncate -s 300K "$work/root/sparse"
    for options in extent "extent,^metadata_csum" "^extent,^64bit,^metadata_csum" "meta_bg,^resize_inode,^metadata_csum"; do
        i=$((i + 1))
        image "ext$i" 512
        mke2fs -q -F -t ext4 -b 1024 -N 32 -O "^has_journal,$options" -d "$work/root" "$work/ext$i"
        parts "ext$i" 0
    done
    image ntfs 2048
    mkntfs -F -q -Q -c 512 "$work/ntfs" 2>/dev/null
    ntfscp -q "$work/ntfs" "$work/root/folder/file" file 2>/dev/null
    parts ntfs 011
    for bits in 12 16; do
        image "fat$bits" $((bits == 12 ? 256 : 4096))
        mkfs.fat -F "$bits" -s 1 "$work/fat$bits" >/dev/null
        mcopy -s -i "$work/fat$bits" "$work/root/folder/file" ::
        parts "fat$bits" $((bits == 12 ? 2 : 3))
    done
}

# part IMAGE SECTOR COUNT: a part as the relocate target reads it
part() {
    le "$2" 4
    le $(($3 * 512)) 2
    dd if="$work/$1" bs=512 skip="$2" count="$3" status=none
}

seed_relocate() {
    seed_table
    rm -f "$out"/*
    {
        printf '\002'
        le 128 4
        le 200 4
        part gpt 0 1
        part gpt 1 1
        part gpt 2 32
        part gpt 95 32
        part gpt 127 1
    } >"$out/gpt"
    {
        printf '\001'
        le 128 4
        le 200 4
        part mbr 0 1
        part mbr 20 1
    } >"$out/mbr"
}

# fill FILE OFFSET: standard input over the bytes of a file
fill() {
    dd of="$work/$1" bs=1 seek="$2" conv=notrunc status=none
}

# Members of the four versions, with nothing inside; the target adds what it knows.
seed_md() {
    local knob place data
    for knob in 0 1 2 3; do
        place=$((knob == 0 ? 0 : knob == 1 ? 4096 : 131072))
        data=$((knob < 2 ? 16384 : 0))
        image md 192
        [ "$knob" != 3 ] || place=$((192 * 1024 - 8192))
        if [ "$knob" = 2 ]; then
            { le 0 4; le 90 4; } | fill md $((place + 4))
            { le 1 4; le 64 4; le 2 4; le 2 4; } | fill md $((place + 28))
            le 1 4 | fill md $((place + 132))
            { le 0 8; le 0 4; le 0 4; le 6 4; } | fill md $((place + 512))
        else
            { le 1 4; le 9 4; } | fill md $((place + 4))
            { le 1 4; le 0 4; le 128 8; le 0 4; le 2 4; le 8 4; } | fill md $((place + 72))
            { le $((data / 512)) 8; le 128 8; le $((place / 512)) 8; } | fill md $((place + 128))
            le 1 4 | fill md $((place + 188))
            printf '\377\377\377\377\377\377\377\377' | fill md $((place + 208))
            le 2 4 | fill md $((place + 220))
            printf '\377\377\377\377\377\377\377\377' | fill md $((place + 512))
        fi
        keep md "$knob"00
        mv "$out/md" "$out/md$knob"
    done
}

# A group with a linear and a striped volume, in extents of 4 KiB.
seed_lvm() {
    image lvm 192
    local uuid=abcdefghijklmnopqrstuvwxyz012345
    {
        le 32 4
        zeros 8
        printf %s "$uuid"
        le $((192 * 1024)) 8
        le 16384 8
        le 0 8
        zeros 16
        le 4096 8
        le 8192 8
        zeros 16
        le 2 4
        le 1 4
    } | fill lvm 532
    printf '%s\n' 'vg {' 'id="x"' 'seqno=1' 'format="lvm2"' 'status=["READ","WRITE"]' 'flags=[]' \
        'extent_size=8' 'physical_volumes {' 'pv0 {' 'id="abcdef-ghij-klmn-opqr-stuv-wxyz-012345"' \
        'status=["ALLOCATABLE"]' 'flags=[]' 'pe_start=32' 'pe_count=40' '}' '}' 'logical_volumes {' \
        'a {' 'status=["READ","VISIBLE"]' 'segment_count=1' 'segment1 {' 'start_extent=0' \
        'extent_count=4' 'type="striped"' 'stripe_count=1' 'stripes=["pv0",2]' '}' '}' \
        'b {' 'status=["VISIBLE"]' 'segment_count=1' 'segment1 {' 'start_extent=0' 'extent_count=4' \
        'type="striped"' 'stripe_count=2' 'stripe_size=2' 'stripes=["pv0",8,"pv0",12]' '}' '}' \
        's {' 'status=[]' 'segment_count=1' 'segment1 {' 'start_extent=0' 'extent_count=4' \
        'type="snapshot"' 'origin="a"' '}' '}' '}' '}' \
        'contents="Text Format Volume Group"' 'version=1' >"$work/text"
    {
        le 1 4
        le 4096 8
        le 8192 8
        le 512 8
        le "$(stat -c %s "$work/text")" 8
    } | fill lvm $((4096 + 20))
    fill lvm $((4096 + 512)) <"$work/text"
    keep lvm 0
}

# Knobs 0: the file is as it is.
seed_qcow2() {
    need qemu-img qemu-utils
    image raw 96
    head -c 40000 /dev/urandom | dd of="$work/raw" bs=1K seek=9 conv=notrunc status=none
    local n=0 options
    for options in 'compat=0.10,cluster_size=512' 'cluster_size=4k' 'cluster_size=4k,compression_type=zstd'; do
        n=$((n + 1))
        qemu-img convert -q -O qcow2 -o "$options" "$work/raw" "$work/plain$n"
        qemu-img convert -q -c -O qcow2 -o "$options" "$work/raw" "$work/packed$n"
        keep "plain$n" 0
        keep "packed$n" 0
    done
    (cd "$work" && qemu-img create -q -f qcow2 -o cluster_size=512 -F raw -b raw backed)
    keep backed 4
}

seed_partclone() {
    need partclone.ext4 partclone
    need mke2fs e2fsprogs
    image ext 128
    mke2fs -q -b 1024 -O ^has_journal,^resize_inode "$work/ext"
    partclone.ext4 -q -c -L "$work/log" -s "$work/ext" -o "$work/plain" 2>/dev/null
    partclone.ext4 -q -c -a0 -L "$work/log" -s "$work/ext" -o "$work/unchecked" 2>/dev/null
    gzip -k "$work/plain"
    zstd -q "$work/plain"
    local name
    for name in plain unchecked plain.gz plain.zst; do keep "$name" 0; done
}

seed_clonezilla() {
    need sfdisk fdisk
    image sda 4096
    printf 'label: dos\nstart=64, size=640, type=83\nstart=1024, size=4096, type=5\nstart=1100, size=640\nstart=2000, size=640, type=82\n' |
        sfdisk -q "$work/sda"
    sfdisk -d "$work/sda" | sed "s,$work,/dev," >"$out/dump"
    printf 'Disk /dev/sda: 8192s\nSector size (logical/physical): 512B/4096B\n' >"$out/parted"
    printf 'UUID="01234567-89ab-cdef-0123-456789abcdef"\nLABEL="swap"\n' >"$out/swap"
    printf '%s\n' sda1.ext4-ptcl-img.gz.aa sda1.ext4-ptcl-img.gz.ab sda2.dd-img.aa >"$out/names"
}

# shellcheck source=fuzz/seeds_images.sh
. "$(dirname "$0")/seeds_images.sh"

if declare -F "seed_$target" >/dev/null; then
    "seed_$target"
fi
