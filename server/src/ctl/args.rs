//! Arguments of `deployctl`.
//!
//! Owns: their names and help. Does not own: what they do.

use super::local_boot::LocalBootArg;
mod retention;

pub use retention::{Retention, RetentionOf, RetentionRule};

use super::multicast::Multicast;
use super::script::{Script, With};
use super::wipe::Wipe;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use wire::{After, Codec, DiskSelector, GrowChoice, PartitionChoice, PartitionPair, RestoreScope};

/// Command line of the management server.
///
/// Exit codes: 0 done, 1 failed while working, 2 wrong usage, 3 refused by a check.
#[derive(Debug, Parser)]
#[command(name = "deployctl", version)]
pub struct Cli {
    /// The server: https://host:26501, or http://127.0.0.1:26500 on its own host.
    #[arg(
        long,
        global = true,
        env = "DEPLOYCTL_SERVER",
        default_value = "https://127.0.0.1:26501"
    )]
    pub server: String,
    /// Hash of the server's key, in hexadecimal [default: from STATE/pin].
    #[arg(long, global = true, env = "DEPLOYCTL_PIN")]
    pub pin: Option<String>,
    /// File with the administrator's token [default: STATE/admin.token].
    #[arg(long, global = true, env = "DEPLOYCTL_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// The server's state folder, when this runs on its host.
    #[arg(
        long,
        global = true,
        env = "DEPLOYD_STATE",
        default_value = "/var/lib/deployd"
    )]
    pub state: PathBuf,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Machines: list, show, rename, forget.
    Machines {
        /// What to do; list if not given.
        #[command(subcommand)]
        command: Option<Machines>,
    },
    /// Back up a machine's disk at its next network boot.
    Backup(Backup),
    /// Restore an image to a machine's disk at its next network boot. Everything on the
    /// disk is overwritten.
    Restore(Restore),
    /// Restore many machines at once, by multicast: restore, add, list, start.
    Multicast {
        /// What to do; list if not given.
        #[command(subcommand)]
        command: Option<Multicast>,
    },
    /// Wipe a machine's disk at its next network boot. Nothing brings back what is on it.
    Wipe(Wipe),
    /// Scripts on machines: run, output.
    #[command(subcommand)]
    Script(Script),
    /// List the certificates of wiped disks, or show one.
    Certificates {
        /// Id of the execution that wiped the disk.
        execution: Option<String>,
    },
    /// List a machine's disks, partitions and file systems at its next network boot.
    DiskCheck {
        /// Name, id or network address.
        machine: String,
        /// What the machine does afterwards.
        #[arg(long, value_enum, default_value_t = AfterArg::Reboot)]
        after: AfterArg,
        /// Wait for the end and show progress.
        #[arg(long)]
        wait: bool,
    },
    /// What machines do.
    Status {
        /// Only this machine.
        machine: Option<String>,
        /// Go on until nothing is unfinished.
        #[arg(long)]
        watch: bool,
    },
    /// Network boot: its services, leased addresses, and what stands in its way.
    Network,
    /// Clear a failed or interrupted execution, so that the machine can have a new one.
    Clear {
        /// Name, id or network address.
        machine: String,
    },
    /// Stop a machine's execution.
    Interrupt {
        /// Name, id or network address.
        machine: String,
    },
    /// Images: list, info, verify, pin, prune, export, import, delete.
    Images {
        /// What to do; list if not given.
        #[command(subcommand)]
        command: Option<Images>,
    },
    /// Show the keys by which others know this server: that of its connections and that of
    /// its signatures.
    Keys,
    /// Which images are kept: rules for names, machines, or all others.
    Retention {
        /// What to do; show if not given.
        #[command(subcommand)]
        command: Option<Retention>,
    },
    /// Read everything that is stored and check it; one that runs already goes on.
    Scrub {
        /// Wait for its end.
        #[arg(long, conflicts_with = "status")]
        wait: bool,
        /// Only tell how far it is and what is damaged.
        #[arg(long)]
        status: bool,
    },
    /// Show the log of a machine's last execution.
    Log {
        /// Name, id or network address.
        machine: String,
        /// Id of an earlier execution.
        #[arg(long)]
        execution: Option<String>,
    },
}

/// Commands for machines.
#[derive(Debug, Subcommand)]
pub enum Machines {
    /// List all.
    List,
    /// Show one with its disks.
    Show {
        /// Name, id or network address.
        machine: String,
    },
    /// Give another name.
    Rename {
        /// Name, id or network address.
        machine: String,
        /// The new name.
        name: String,
    },
    /// How the machine boots its own disk when it has no job: "auto", or "exit", "exit-ok" or
    /// "search" for firmware that does not get there.
    LocalBoot {
        /// Name, id or network address.
        machine: String,
        /// The way.
        #[arg(value_enum)]
        way: LocalBootArg,
    },
    /// Remove a machine and its history; its images stay.
    Forget {
        /// Name, id or network address.
        machine: String,
    },
}

/// Commands for images.
#[derive(Debug, Subcommand)]
pub enum Images {
    /// List all.
    List,
    /// Show one with its disk and partitions.
    Info {
        /// Name (its newest) or id.
        image: String,
    },
    /// Read and check everything that belongs to an image.
    Verify {
        /// Name (its newest) or id.
        image: String,
    },
    /// Keep an image whatever the rules of retention say.
    Pin {
        /// Name (its newest) or id.
        image: String,
    },
    /// Let a pinned image go again when no rule keeps it.
    Unpin {
        /// Name (its newest) or id.
        image: String,
    },
    /// Delete the images that no rule of retention keeps. The server does it by itself after
    /// each backup and once a day.
    Prune {
        /// Only tell what would be deleted, and why the others stay.
        #[arg(long)]
        dry_run: bool,
    },
    /// Write an image to one file, which imager and other servers read.
    Export {
        /// Name (its newest) or id.
        image: String,
        /// The file, which must not be there yet.
        file: PathBuf,
    },
    /// Take an image from a file of imager or of another server.
    Import {
        /// The file.
        file: PathBuf,
        /// Name of the image [default: the file's without its ending].
        #[arg(long)]
        name: Option<String>,
    },
    /// Delete one image; earlier ones of the name stay.
    Delete {
        /// Name (its newest) or id.
        image: String,
    },
}

/// Arguments of a backup.
#[derive(Debug, Args)]
pub struct Backup {
    /// Name, id or network address.
    pub machine: String,
    /// Name of the image; {machine}, {mac}, {uuid} and {date} in it are filled in.
    #[arg(long)]
    pub image: String,
    /// Serial number, WWN, path or number=N of the disk [default: the only fixed one]; given
    /// several times: one image of each, published together under one name.
    #[arg(long)]
    pub disk: Vec<String>,
    /// All fixed disks that the machine had at its last check-in, as --disk for each.
    #[arg(long, conflicts_with = "disk")]
    pub all_disks: bool,
    /// Copy only this partition, by its number in the last disk check; may be given
    /// several times.
    #[arg(long = "partition", value_name = "NUMBER")]
    pub partitions: Vec<u32>,
    /// Copy every sector, not only used ones, of the whole disk or (--full=NUMBER) of one
    /// partition.
    #[arg(
        long,
        value_name = "NUMBER",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "0"
    )]
    pub full: Vec<u32>,
    /// Go on past sectors that cannot be read: they become zeros and are recorded in the
    /// image.
    #[arg(long)]
    pub skip_bad: bool,
    /// Compression: zstd, or none where the network is faster than the processor.
    #[arg(long, value_enum, default_value_t = CodecArg::Zstd)]
    pub codec: CodecArg,
    /// Level of the compression: zstd 1 to 19, deflate 1 to 9.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=19))]
    pub level: i32,
    /// Bytes a second that its transfer may take, as 50M; at least 1M [default: no limit].
    #[arg(long, value_name = "BYTES", value_parser = wire::size::parse)]
    pub rate: Option<u64>,
    /// Scripts before and after it.
    #[command(flatten)]
    pub scripts: With,
    /// What the machine does afterwards.
    #[arg(long, value_enum, default_value_t = AfterArg::Reboot)]
    pub after: AfterArg,
    /// Wait for the end and show progress.
    #[arg(long)]
    pub wait: bool,
}

/// Arguments of a restore.
#[derive(Debug, Args)]
pub struct Restore {
    /// Name, id or network address.
    pub machine: String,
    /// Name (its newest) or id of the image.
    #[arg(long)]
    pub image: String,
    /// Serial number, WWN, path or number=N of the disk [default: the only fixed one]; given
    /// several times: where the images of a backup of several disks go, in its order.
    #[arg(long)]
    pub disk: Vec<String>,
    /// The images of a backup of several disks, each to the disk that it was made of
    /// [default for the name of such a backup].
    #[arg(long, conflicts_with = "disk")]
    pub all_disks: bool,
    /// Restore only this partition of the image, into the disk's of the same number (or,
    /// as IMAGE=DISK, into another one); may be given several times.
    #[arg(long, value_name = "N[=M]")]
    pub partition: Vec<PartitionPair>,
    /// Leave this partition of the disk as it is; may be given several times.
    #[arg(long, value_name = "N", conflicts_with = "partition")]
    pub keep: Vec<PartitionChoice>,
    /// Let this partition grow into the free space behind it, or up to the size of the one
    /// it goes to.
    #[arg(long, value_name = "N|last")]
    pub grow: Option<GrowChoice>,
    /// Leave hidden partitions out of the numbering.
    #[arg(long)]
    pub number_visible: bool,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
    /// Do not read back what was written.
    #[arg(long)]
    pub no_verify: bool,
    /// Hash what the disk holds, and write only what differs.
    #[arg(long)]
    pub reuse: bool,
    /// Go on although architecture or firmware mode differ.
    #[arg(long)]
    pub force: bool,
    /// Bytes a second that its transfer may take, as 50M; at least 1M [default: no limit].
    #[arg(long, value_name = "BYTES", value_parser = wire::size::parse)]
    pub rate: Option<u64>,
    /// Scripts before and after it.
    #[command(flatten)]
    pub scripts: With,
    /// What the machine does afterwards.
    #[arg(long, value_enum, default_value_t = AfterArg::Reboot)]
    pub after: AfterArg,
    /// Wait for the end and show progress.
    #[arg(long)]
    pub wait: bool,
}

impl Restore {
    /// What of the disk is replaced.
    pub fn scope(&self) -> RestoreScope {
        RestoreScope {
            partitions: self.partition.clone(),
            keep: self.keep.clone(),
            grow: self.grow,
            number_visible: self.number_visible,
        }
    }
}

/// What a machine does after its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AfterArg {
    /// Reboot.
    Reboot,
    /// Power off.
    Poweroff,
}

impl From<AfterArg> for After {
    fn from(after: AfterArg) -> Self {
        match after {
            AfterArg::Reboot => After::Reboot,
            AfterArg::Poweroff => After::PowerOff,
        }
    }
}

/// How a backup is compressed.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum CodecArg {
    /// Zstandard.
    Zstd,
    /// Deflate.
    Deflate,
    /// Not at all.
    None,
}

impl From<CodecArg> for Codec {
    fn from(codec: CodecArg) -> Self {
        match codec {
            CodecArg::Zstd => Codec::Zstd,
            CodecArg::Deflate => Codec::Deflate,
            CodecArg::None => Codec::None,
        }
    }
}

/// The only one that is named, if it is one.
pub fn only(disks: &[String]) -> Option<&str> {
    match disks {
        [one] => Some(one),
        _ => None,
    }
}

/// Several that are named; none if it is one.
pub fn several(disks: &[String]) -> Vec<DiskSelector> {
    match disks {
        [_] => Vec::new(),
        several => several.iter().map(|text| disk(text)).collect(),
    }
}

/// How a disk is named: `number=` and its number, a path, a WWN in one of its forms, or
/// else a serial number.
pub fn disk(text: &str) -> DiskSelector {
    let owned = Some(text.to_owned());
    if let Some(number) = text.strip_prefix("number=").and_then(|n| n.parse().ok()) {
        return DiskSelector {
            number: Some(number),
            ..DiskSelector::default()
        };
    }
    if text.starts_with("/dev/") {
        return DiskSelector {
            path: owned,
            ..DiskSelector::default()
        };
    }
    if ["naa.", "eui.", "uuid.", "t10."]
        .iter()
        .any(|prefix| text.starts_with(prefix))
    {
        return DiskSelector {
            wwn: owned,
            ..DiskSelector::default()
        };
    }
    DiskSelector {
        serial: owned,
        ..DiskSelector::default()
    }
}

#[cfg(test)]
mod tests {
    use super::{Cli, disk};
    use clap::CommandFactory;

    #[test]
    fn arguments_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn disks_are_named_by_what_the_text_looks_like() {
        assert_eq!(disk("/dev/sda").path.as_deref(), Some("/dev/sda"));
        assert_eq!(disk("naa.5000c500").wwn.as_deref(), Some("naa.5000c500"));
        assert_eq!(disk("number=2").number, Some(2));
        assert_eq!(disk("S3Z8NB0K").serial.as_deref(), Some("S3Z8NB0K"));
    }
}
