//! The error catalogue: every failure that a user can meet, by a stable code.
//!
//! Owns: codes, headlines, general advice and the outcome that each code stands
//! for. Does not own: the values that were found (see [`crate::report`]).
//! `docs/reference/errors.md` is generated from this table.

use serde::{Deserialize, Serialize};

/// What a code means for the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A check refused the job before anything was written: exit code 3.
    Refused,
    /// The job failed while it was working: exit code 1.
    Failed,
    /// The job goes on; the result carries the warning.
    Warning,
    /// The job waits and says what for.
    Waiting,
}

macro_rules! catalogue {
    ($($variant:ident, $code:literal, $outcome:ident, $headline:literal, $advice:literal;)*) => {
        /// Stable code of a check or failure.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[allow(missing_docs)] // each is described by its headline
        pub enum Code {
            $(#[doc = $headline] #[serde(rename = $code)] $variant,)*
        }

        impl Code {
            /// Every code, in the order of the catalogue.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)*];

            /// The code as users and scripts see it.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $code,)* }
            }
            /// One sentence: what is wrong.
            pub fn headline(self) -> &'static str {
                match self { $(Code::$variant => $headline,)* }
            }
            /// What a user can do about it.
            pub fn advice(self) -> &'static str {
                match self { $(Code::$variant => $advice,)* }
            }
            /// What the code usually means for the job.
            pub fn outcome(self) -> Outcome {
                match self { $(Code::$variant => Outcome::$outcome,)* }
            }
        }
    };
}

catalogue! {
    DiskNotFound, "disk-not-found", Refused, "The chosen disk is not there.",
        "Choose one of the disks that are listed; check cable, controller and driver if yours is missing.";
    PartitionNotFound, "partition-not-found", Refused, "The chosen partition is not there.",
        "Choose one of the partitions that are listed.";
    GptDamaged, "gpt-damaged", Refused, "The GUID partition table is damaged.",
        "Repair it (for example with sgdisk), or use --full to copy every sector.";
    MbrDamaged, "mbr-damaged", Refused, "The MBR partition table is damaged.",
        "Repair it (for example with sfdisk), or use --full to copy every sector.";
    FsDamaged, "fs-damaged", Warning, "A file system contradicts itself; its partition is copied sector by sector.",
        "Check the file system with its own tool when the machine can be stopped.";
    FsDirty, "fs-dirty", Warning, "A file system was not cleanly unmounted.",
        "Shut the machine down properly and repeat the backup for a smaller image.";
    DiskSmallerThanLayout, "disk-smaller-than-layout", Refused, "The disk is smaller than its partition table or file systems say.",
        "Check and repair the table, or use --full to copy every sector that is there.";
    SectorSizeUnsupported, "sector-size-unsupported", Refused, "The disk's logical sector size is not supported.",
        "Supported are 512, 1024, 2048 and 4096 bytes.";
    ReadError, "read-error", Failed, "Sectors of the disk cannot be read.",
        "Replace the disk soon; save what can be read with a full-sector backup.";
    NoSpace, "no-space", Failed, "The store is full.",
        "Delete images that are no longer needed or enlarge the store, then repeat the job.";
    DisksChanged, "disks-changed", Refused, "The machine's disks are not those of the last disk check.",
        "Look at the difference and repeat the disk check.";
    DiskInUse, "disk-in-use", Refused, "The disk is in use.",
        "Unmount it or stop what holds it.";
    ImageExists, "image-exists", Refused, "There is already an image of that name.",
        "Choose another name, or delete the old image.";
    ImageDamaged, "image-damaged", Failed, "The image is damaged.",
        "Use another copy of the image; do not trust this one.";
    ImageVersion, "image-version", Refused, "The image was made by a newer version.",
        "Update this program.";
    ImagePartial, "image-partial", Refused, "The image does not hold the whole disk.",
        "Restore the partitions that it holds one by one, or make an image of the whole disk.";
    ImageUntrusted, "image-untrusted", Refused, "The image is not signed by the key that is trusted.",
        "Check where the image is from; use one that the trusted key signed, or sign it with imager sign if you know that it is right.";
    ImageLocked, "image-locked", Refused, "The image is encrypted, and no key opens it.",
        "Give the passphrase or the identity that the image was encrypted for, or the key file with --key.";
    ImageNotEncrypted, "image-not-encrypted", Refused, "The image is not encrypted, and a key was given for it.",
        "Check where the image is from; take it as it is with --allow-plain (deploy.allow-plain on a target) if you know that it is right.";
    ImageNotFound, "image-not-found", Refused, "There is no such image.",
        "List the images and choose one that exists.";
    ImportUnsupported, "import-unsupported", Refused, "The image has something that cannot be imported.",
        "Convert it with the program that made it, or restore it to a disk and make a backup of that.";
    ImportIncomplete, "import-incomplete", Warning, "The image that is imported does not hold all that a backup would.",
        "Check the file system after a restore; make a new image of the original disk if it is still there.";
    FileNotFound, "file-not-found", Refused, "There is no such file in the image.",
        "List what is there with imager ls.";
    FileExists, "file-exists", Refused, "There is already a file of that name.",
        "Choose another folder, or add --overwrite.";
    FileUnreadable, "file-unreadable", Failed, "A file in the image cannot be read.",
        "Serve the image with imager nbd, or export it, and mount it.";
    FilesIncomplete, "files-incomplete", Failed, "Not everything was extracted.",
        "Look at what is named; what is not named is complete.";
    SectorSizeMismatch, "sector-size-mismatch", Refused, "Image and disk have different sector sizes.",
        "Choose a disk with the image's sector size.";
    TableTypeMismatch, "table-type-mismatch", Refused, "Image and disk have different kinds of partition table.",
        "Restore the whole disk, which replaces the table.";
    PartitionSizeMismatch, "partition-size-mismatch", Refused, "Image and partition have different sizes.",
        "Choose a partition of the same size.";
    PartitionTypeMismatch, "partition-type-mismatch", Refused, "Image and partition have different types.",
        "Choose a partition of the same type.";
    DiskTooSmall, "disk-too-small", Refused, "The disk is too small for the image.",
        "Choose a disk of at least the minimum size. If the last partition holds ext2, ext3 or ext4, imager shrink makes an image for a smaller one.";
    ImageNotForMachine, "image-not-for-machine", Refused, "The image was made on another kind of machine.",
        "Choose an image of the same architecture and firmware mode, or force the restore.";
    PartitionIdentity, "partition-identity", Refused, "The partition is not the one that the job means.",
        "Repeat the disk check and choose again.";
    MediumNotFound, "medium-not-found", Waiting, "The medium with the image is not there.",
        "Insert the medium and try again.";
    MediumWrong, "medium-wrong", Waiting, "The medium is not the one that is needed.",
        "Insert the medium that is named.";
    TargetAmbiguous, "target-ambiguous", Refused, "Several disks fit the description.",
        "Name the disk by its serial number.";
    WriteError, "write-error", Failed, "The disk does not take what is written.",
        "Check disk, cable and controller; replace the disk if it persists.";
    VerifyMismatch, "verify-mismatch", Failed, "The disk gives back something else than was written.",
        "Do not use this disk; check disk, controller and memory.";
    WipeUnsupported, "wipe-unsupported", Refused, "The disk cannot be wiped in that way.",
        "Choose another method; --method auto takes the best that the disk can do.";
    FsNotGrown, "fs-not-grown", Warning, "A partition is larger than before, its file system is not.",
        "Let the file system's own tool enlarge it.";
    TableNotReread, "table-not-reread", Warning, "The kernel of this machine still has the disk's old partition table.",
        "Mount nothing of this disk before a restart, or before its partitions are free and partprobe was run.";
    BootEntryFailed, "boot-entry-failed", Warning, "The firmware's boot entries could not be brought up to date.",
        "The disk is complete. If the machine does not start from it, choose it in the firmware's boot menu and make an entry there.";
    NotConfirmed, "not-confirmed", Refused, "The overwriting was not confirmed.",
        "Answer with yes on a terminal, or add --yes.";
    NoNetworkDevice, "no-network-device", Failed, "No network device works.",
        "Check the hardware; add the driver to the machine's driver pack.";
    NoStorageDriver, "no-storage-driver", Failed, "A storage controller has no driver.",
        "Add the driver to the machine's driver pack.";
    DriverFetchFailed, "driver-fetch-failed", Failed, "The machine's driver pack cannot be had.",
        "Put the pack on the server again.";
    NoLink, "no-link", Failed, "No network cable is connected.",
        "Check cable and switch port.";
    NoAddress, "no-address", Failed, "No address was received by DHCP.",
        "Check the DHCP server, its free addresses and the VLAN of the switch port.";
    ServerNotFound, "server-not-found", Failed, "The management server does not answer.",
        "Check that deployd runs, its address, and the firewall on its ports.";
    ServerRefused, "server-refused", Failed, "The server refused.",
        "Check that the machine is known and not locked, and that pin and token are the server's.";
    DhcpConflict, "dhcp-conflict", Warning, "DHCP in this network is not as network boot needs it.",
        "Look at what is named: another server that answers too, or a range of addresses that does not suffice.";
    MachineIsOn, "machine-is-on", Refused, "The machine is running.",
        "Shut it down, or choose to reboot it.";
    PowerOnTimeout, "power-on-timeout", Failed, "The machine did not power on.",
        "Check wake-on-LAN in its firmware, or power it on by hand.";
    NoNetworkBoot, "no-network-boot", Failed, "The machine is on but did not boot from the network.",
        "Check the boot order, which firmware updates and operating systems change.";
    BootStalled, "boot-stalled", Failed, "The machine fetched its boot script but never checked in.",
        "Look at its screen. Likely: the kernel has no driver for its network card, it stops in a panic or for want of memory, or the server's data port cannot be reached from there.";
    BootDamaged, "boot-damaged", Failed, "The Deploy-OS came damaged.",
        "Restart the machine. If it happens again, check its memory, the files in the server's PXE folder, or the medium.";
    TransferNotStarted, "transfer-not-started", Failed, "The transfer did not start in time.",
        "Look at the machine's screen.";
    TargetSilent, "target-silent", Failed, "The machine stopped reporting.",
        "Look at its screen and power; then clear the error and decide whether to run the job again.";
    MachineAmbiguous, "machine-ambiguous", Refused, "Network address and machine identity belong to different machines.",
        "Correct the machine list; a dock's or adapter's address belongs to no machine.";
    NothingAssigned, "nothing-assigned", Waiting, "Nothing is assigned to this machine.",
        "The machine boots its local disk.";
    MulticastAddressInUse, "multicast-address-in-use", Refused, "Another running session uses the multicast address.",
        "Choose another group address.";
    MulticastSilent, "multicast-silent", Warning, "No multicast arrives although the server sends.",
        "Check IGMP snooping and the interface; the transfer goes on by unicast.";
    MulticastIncomplete, "multicast-incomplete", Warning, "Multicast did not bring everything.",
        "The rest came by unicast, and what is on the disk is proved; look at disk and network of this machine if it is slower than others.";
    TransferTimeout, "transfer-timeout", Failed, "The transfer made no progress for too long.",
        "Check network and server, then start the job again.";
    ConnectionLost, "connection-lost", Failed, "The connection was lost and could not be made again.",
        "Check network and server, then start the job again.";
    ScriptUntrusted, "script-untrusted", Refused, "A script is not signed by the key that is trusted.",
        "Boot the machine by the server that ordered it, which names its key (deploy.signer=, --trusted-key).";
    ScriptFailed, "script-failed", Failed, "A script failed.",
        "Look at its output with deployctl script output; correct it, and order the job again.";
    Interrupted, "interrupted", Failed, "The job was interrupted.",
        "Start it again when you like.";
    Busy, "busy", Waiting, "All transfer slots are taken.",
        "The machine waits in line.";
    PortInUse, "port-in-use", Failed, "A network port or socket cannot be opened.",
        "Stop the program that has it, or change the server's settings.";
    Usage, "usage", Refused, "The command cannot be understood.",
        "See --help.";
    OutputFailed, "output-failed", Failed, "The result cannot be written.",
        "Check space and rights of the destination.";
    Internal, "internal", Failed, "The program met a state that it does not expect.",
        "Please report this with the log.";
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::Code;

    #[test]
    fn codes_are_unique_and_kebab_case() {
        let mut seen = std::collections::HashSet::new();
        for code in Code::ALL {
            let text = code.as_str();
            assert!(seen.insert(text), "{text} twice");
            assert!(
                text.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'),
                "{text}"
            );
            assert_eq!(serde_json::to_string(code).unwrap(), format!("\"{text}\""));
            assert!(
                code.headline().ends_with('.') && code.advice().ends_with('.'),
                "{text}"
            );
        }
    }
}
