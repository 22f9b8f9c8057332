# What the scripts of a guest stand on: busybox, the imager, and nothing else.
#
# Sourced as the first process of the guest. Every step keeps its output and exit code
# on the store (/mnt), where the host reads them afterwards.
set -u
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
mkdir -p /mnt/out /a /b

# run NAME COMMAND...: keeps what the command says and how it ends.
run() {
    name=$1
    shift
    code=0
    "$@" >"/mnt/out/$name.out" 2>"/mnt/out/$name.err" || code=$?
    echo "$code" >"/mnt/out/$name.code"
    echo "GUEST-STEP $name ended with $code, $(cut -d' ' -f1 /proc/uptime) s after the start"
}

# node SERIAL: the disk with this serial number; some drivers look for theirs a while.
node() {
    tries=0
    while [ $tries -lt 600 ]; do
        for disk in /sys/block/*; do
            for file in "$disk/serial" "$disk/device/serial"; do
                if [ -r "$file" ] && [ "$(tr -d ' \n' <"$file")" = "$1" ]; then
                    echo "/dev/${disk##*/}"
                    return 0
                fi
            done
        done
        tries=$((tries + 1))
        sleep 0.1
    done
    echo "GUEST-STEP there is no disk $1" >/dev/console
    return 1
}

# part DISK NUMBER: the node of a partition.
part() {
    case $1 in
        *[0-9]) echo "$1p$2" ;;
        *) echo "$1$2" ;;
    esac
}

# table DISK: number, start and size (in units of 512 bytes) of each partition, as the
# kernel knows them now.
table() {
    for entry in "/sys/block/${1##*/}/${1##*/}"*; do
        [ -r "$entry/partition" ] || continue
        echo "$(cat "$entry/partition") $(cat "$entry/start") $(cat "$entry/size")"
    done | sort -n
}

# files FOLDER LIST: every file of the list is there and has its hash.
files() {
    cd "$1" && sha256sum -c "$2"
}

# mounted TYPE OPTIONS DEVICE LIST [LIST OF last/]: the same for a device that is mounted
# for it.
mounted() {
    mount -t "$1" -o "$2" "$3" /a || return 1
    found=0
    (files /a "$4") || found=1
    [ $# -lt 5 ] || (files /a/last "$5") || found=1
    umount /a || return 1
    return $found
}
