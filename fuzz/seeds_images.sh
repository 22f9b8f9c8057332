# shellcheck shell=bash
# Seeds of what comes over a network and of our own formats. Sourced by seeds.sh.
#
# Owns: these recipes. Does not own: disks and file systems, and the words that both use
# (need, image, keep, be, le), which are in seeds.sh.

# Zeros.
zeros() {
    head -c "$1" /dev/zero
}

# A DHCPDISCOVER of a BIOS PXE client, and one with options in its file field.
seed_dhcp() {
    local fields='\001\001\006\000\071\003\363\046'
    {
        printf "\\000$fields"
        zeros 228
        printf 'cook\065\001\001\074\011PXEClient\135\002\000\007\053\007\107\004\200\000\000\000\377\377'
    } >"$out/pxe"
    {
        printf "\\002$fields"
        zeros 100
        printf '\115\004iPXE\377'
        zeros 121
        printf 'cook\064\001\001\065\001\003\066\004\012\143\000\002\074\012HTTPClient\377'
    } >"$out/overload"
}

# Requests and a few acknowledgements.
seed_tftp() {
    printf '\000\001undionly.kpxe\000octet\000tsize\0000\000' >"$out/read"
    {
        printf '\021\033blksize\0001024\000windowsize\0004\000'
        printf '\000\004\000\000\000\004\000\004\000\004\000\006\000\004\000\006x'
    } >"$out/transfer"
}

# The files of each format version that are kept for ever, with and without the knob that
# corrects checksums.
golden() {
    local knob file
    for knob in 000 001; do
        for file in ../crates/image/tests/golden/v*."$1"; do
            { printf "\\$knob"; cat "$file"; } >"$out/${file##*/}-$knob"
        done
    done
}

seed_container() { golden container; }
seed_open() { golden container; }
seed_manifest() { golden manifest; }
seed_pack() { golden pack; }

# The list of the golden container: three ranges behind the only section of kind 7.
seed_bad() {
    local golden=../crates/image/tests/golden/v2.container at
    at=$(LC_ALL=C grep -abo "$(printf 'DSec\007')" "$golden" | head -n 1 | cut -d: -f1)
    tail -c "+$((at + 33))" "$golden" | head -c 64 >"$out/bad"
}

# The signature of the signed manifest, and the proof of the encrypted one: its last bytes.
seed_signature() {
    tail -c 100 ../crates/image/tests/golden/v3-signed.manifest >"$out/signature"
    tail -c 52 ../crates/image/tests/golden/v3.manifest >"$out/proof"
}

# A header that nobody can open.
seed_keyfile() {
    {
        printf '%s\n' '-----BEGIN AGE ENCRYPTED FILE-----'
        {
            printf '%s\n' 'age-encryption.org/v1' '-> X25519 '"$(zeros 32 | base64 | tr -d =)" \
                "$(zeros 32 | base64 | tr -d =)" '--- '"$(zeros 32 | base64 | tr -d =)"
            zeros 64
        } | base64 -w 64
        printf '%s\n' '-----END AGE ENCRYPTED FILE-----'
    } >"$out/recipient"
}

# A medium of a set.
seed_medium() {
    printf '%s' '{"format":1,"version":"0.1.0","id":"00112233445566778899aabbccddeeff","restore":{' \
        '"image":"pc","size_bytes":10,"medium":2,"media":2,"start":4,"parts":[' \
        '{"file":"image.0001","size_bytes":6}],"unattended":true,"disk":{"serial":"S1"}}}' >"$out/set"
}

# The records of the golden pack, without its header.
seed_record() {
    { printf '\001'; tail -c +33 ../crates/image/tests/golden/v1.pack; } >"$out/records"
    { printf '\001'; tail -c +33 ../crates/image/tests/golden/v2.pack; } >"$out/sealed"
}

# The layout of the golden manifest, which stands behind two headers of 32 bytes.
seed_layout() {
    local golden=../crates/image/tests/golden/v1.manifest length
    length=$(od -An -t u4 -j 40 -N 4 "$golden" | tr -d ' ')
    tail -c +65 "$golden" | head -c "$length" >"$out/layout"
}

# Behind handshakes of several kinds: a read, block status, a write with its data.
seed_nbd() {
    local knobs
    for knobs in 011 013 017; do
        {
            printf "\\$knobs"
            printf '%%\140\225\023\000\000\000\000cookie_1'
            be 4000 8
            be 5000 4
            printf '%%\140\225\023\000\000\000\007cookie_2'
            be 0 8
            be 60000 4
            printf '%%\140\225\023\000\000\000\001cookie_3'
            be 0 8
            be 4 4
            printf 'data'
        } >"$out/requests-$knobs"
    done
    {
        printf '\001IHAVEOPT'
        be 3 4
        be 0 4
        printf 'IHAVEOPT'
        be 6 4
        be 9 4
        be 1 4
        printf '1'
        be 1 2
        be 3 2
    } >"$out/options"
}

seed_message() {
    printf '\002{"step":"running","done_bytes":5,"total_bytes":9,"wire_bytes":1,"bytes_per_second":2,"seconds_left":3}' \
        >"$out/progress"
    printf '\004{"disk":{"path":"/dev/sda","size_bytes":512,"sector_size":512},"blobs":[{"offset":0,"data":"AAAA"}]}' \
        >"$out/tables"
    printf '\007{"code":"disk-in-use","found":"x","advice":"y","disk":"untouched"}' >"$out/report"
}

# A boot entry of a loader on a partition whose identity is 16 times 2.
seed_efi() {
    {
        printf '\0\1\0\0\0\142\0d\0\0\0\4\1\52\0\1\0\0\0\0\10\0\0\0\0\0\0\0\20\0\0\0\0\0\0'
        printf '\2%.0s' {1..18}
        printf '\4\4\64\0'
        printf '%s' '\EFI\debian\shimx64.efi' | sed 's/./&\x00/g'
        printf '\0\0\177\377\4\0'
    } >"$out/stale"
}
