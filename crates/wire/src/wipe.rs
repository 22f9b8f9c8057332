//! Wiping a disk: what is ordered, and what was done and proved.
//!
//! Owns: the shapes, their words, and whether a result is one of its order. Does not own:
//! the wiping (the `imager`), keeping certificates (the server).

use crate::message::{DiskInfo, DiskSelector};
use crate::size;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Most passes of an overwriting.
pub const MAX_PASSES: u32 = 16;

/// How a disk is wiped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WipeMethod {
    /// The best that the disk can do; what fails or cannot be proved is followed by the next.
    #[default]
    Auto,
    /// Every block is given back to the disk.
    Discard,
    /// Every sector is written.
    Overwrite,
    /// The command Format NVM with an erase of the user data.
    NvmeFormat,
    /// The command Sanitize.
    NvmeSanitize,
}

impl WipeMethod {
    /// All methods.
    pub const ALL: &'static [WipeMethod] = &[
        WipeMethod::Auto,
        WipeMethod::Discard,
        WipeMethod::Overwrite,
        WipeMethod::NvmeFormat,
        WipeMethod::NvmeSanitize,
    ];

    /// The name that people write.
    pub fn as_str(self) -> &'static str {
        match self {
            WipeMethod::Auto => "auto",
            WipeMethod::Discard => "discard",
            WipeMethod::Overwrite => "overwrite",
            WipeMethod::NvmeFormat => "nvme-format",
            WipeMethod::NvmeSanitize => "nvme-sanitize",
        }
    }
}

impl fmt::Display for WipeMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for WipeMethod {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut all = WipeMethod::ALL.iter().copied();
        all.find(|method| method.as_str() == text).ok_or_else(|| {
            let names: Vec<&str> = WipeMethod::ALL.iter().map(|m| m.as_str()).collect();
            format!("{text:?} is none of {}", names.join(", "))
        })
    }
}

/// What a wipe is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WipeOrder {
    /// The disk; `None` means the only fixed disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskSelector>,
    /// How.
    #[serde(default)]
    pub method: WipeMethod,
    /// How many times every sector is written, where it is written.
    #[serde(default = "once")]
    pub passes: u32,
}

fn once() -> u32 {
    1
}

impl Default for WipeOrder {
    fn default() -> Self {
        WipeOrder {
            disk: None,
            method: WipeMethod::Auto,
            passes: 1,
        }
    }
}

impl WipeOrder {
    /// Whether it makes sense.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self) -> Result<(), String> {
        let passes = self.passes;
        if !(1..=MAX_PASSES).contains(&passes) {
            return Err(format!("{passes} passes; 1 to {MAX_PASSES} are possible"));
        }
        match self.method {
            WipeMethod::Auto | WipeMethod::Overwrite => Ok(()),
            _ if passes == 1 => Ok(()),
            method => Err(format!("{passes} passes; {method} has none")),
        }
    }
}

/// What was seen of the disk after a wipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "seen", rename_all = "kebab-case")]
pub enum WipeProof {
    /// All of it was read back: zeros.
    Zeros,
    /// All of it was read back: in each block of 4096 bytes all bytes are the same.
    Uniform,
    /// The disk gives back something else than zeros. Marks that were written all over it
    /// just before, and read back, are gone.
    Marks {
        /// How many; of 4096 bytes each.
        count: u64,
    },
}

/// A wipe that was carried out and proved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Wiped {
    /// The disk.
    pub disk: DiskInfo,
    /// The method that was ordered.
    pub ordered: WipeMethod,
    /// The method that was carried out: never [`WipeMethod::Auto`].
    pub method: WipeMethod,
    /// What exactly was done, in words.
    pub action: String,
    /// How many times every sector was written; 0 if it was not.
    pub passes: u32,
    /// Bytes that were wiped: the size of the disk.
    pub bytes: u64,
    /// Bytes that were read back in the end.
    pub read_back_bytes: u64,
    /// What they were.
    pub proof: WipeProof,
    /// What was tried before and was not enough, in words.
    #[serde(default)]
    pub before: Vec<String>,
    /// Seconds that it took, with the read-back.
    pub seconds: f64,
}

impl Wiped {
    /// How it was proved.
    pub fn proved(&self) -> String {
        let read = size::bytes(self.read_back_bytes);
        match self.proof {
            WipeProof::Zeros => format!("all {read} were read back past the cache and are zeros"),
            WipeProof::Uniform => {
                format!("all {read} were read back past the cache and hold nothing but fill bytes")
            }
            WipeProof::Marks { count } => format!(
                "{count} marks of 4096 bytes that were written all over the disk just before were \
                 read back past the cache and are gone; what stands there is no fill"
            ),
        }
    }

    /// The whole in one sentence.
    pub fn sentence(&self) -> String {
        format!(
            "{} of {} wiped by {} ({}) in {}: {}",
            size::bytes(self.bytes),
            self.disk.path,
            self.method,
            self.action,
            size::duration(self.seconds as u64),
            self.proved()
        )
    }

    /// Why it cannot be the result of `order` on the disk `begun`.
    pub fn contradiction(&self, order: &WipeOrder, begun: &DiskInfo) -> Option<&'static str> {
        let all = self.disk.size_bytes;
        let same_disk = self.disk.serial == begun.serial
            && self.disk.wwn == begun.wwn
            && self.disk.size_bytes == begun.size_bytes;
        if !same_disk {
            return Some("another disk was wiped than the one that was begun");
        }
        if self.ordered != order.method {
            return Some("another method was ordered");
        }
        if self.method == WipeMethod::Auto
            || (order.method != WipeMethod::Auto && self.method != order.method)
        {
            return Some("another method was carried out than was ordered");
        }
        if all == 0 || self.bytes != all {
            return Some("not all of the disk was wiped");
        }
        let by_command = matches!(
            self.method,
            WipeMethod::NvmeFormat | WipeMethod::NvmeSanitize
        );
        let enough = match self.proof {
            WipeProof::Zeros => self.read_back_bytes == all,
            WipeProof::Uniform => by_command && self.read_back_bytes == all,
            WipeProof::Marks { count } => by_command && count > 0,
        };
        if !enough {
            return Some("what was read back proves nothing");
        }
        if self.method == WipeMethod::Overwrite && self.passes != order.passes {
            return Some("it was not overwritten as often as was ordered");
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{WipeMethod, WipeOrder, WipeProof, Wiped};
    use crate::message::DiskInfo;

    fn disk() -> DiskInfo {
        DiskInfo {
            path: "/dev/sda".into(),
            serial: "S1".into(),
            size_bytes: 1 << 30,
            ..DiskInfo::default()
        }
    }

    fn wiped(method: WipeMethod) -> Wiped {
        Wiped {
            disk: disk(),
            ordered: WipeMethod::Auto,
            method,
            action: "zeros".into(),
            passes: 1,
            bytes: 1 << 30,
            read_back_bytes: 1 << 30,
            proof: WipeProof::Zeros,
            before: Vec::new(),
            seconds: 61.0,
        }
    }

    #[test]
    fn methods_are_written_as_they_are_shown() {
        for method in WipeMethod::ALL {
            assert_eq!(method.as_str().parse(), Ok(*method));
            let json = serde_json::to_string(method).unwrap();
            assert_eq!(json, format!("\"{method}\""));
        }
        assert!("shred".parse::<WipeMethod>().is_err());
    }

    #[test]
    fn an_order_without_a_word_is_auto_once() {
        let order: WipeOrder = serde_json::from_str("{}").unwrap();
        assert_eq!(order, WipeOrder::default());
        let job: crate::JobKind = serde_json::from_str(r#"{"kind":"wipe"}"#).unwrap();
        assert_eq!(job, crate::JobKind::Wipe(order));
        let json = serde_json::to_string(&job).unwrap();
        assert_eq!(json, r#"{"kind":"wipe","method":"auto","passes":1}"#);
    }

    #[test]
    fn passes_belong_to_overwriting() {
        let order = |method, passes| WipeOrder {
            method,
            passes,
            ..WipeOrder::default()
        };
        for (method, passes, good) in [
            (WipeMethod::Overwrite, 3, true),
            (WipeMethod::Auto, 16, true),
            (WipeMethod::Auto, 17, false),
            (WipeMethod::Overwrite, 0, false),
            (WipeMethod::Discard, 1, true),
            (WipeMethod::Discard, 2, false),
            (WipeMethod::NvmeSanitize, 2, false),
        ] {
            let found = order(method, passes).check();
            assert_eq!(found.is_ok(), good, "{method} {passes}: {found:?}");
        }
    }

    #[test]
    fn a_result_is_believed_only_if_it_is_that_of_the_order() {
        let order = WipeOrder::default();
        let refused = |change: fn(&mut Wiped)| {
            let mut result = wiped(WipeMethod::Overwrite);
            change(&mut result);
            result.contradiction(&order, &disk())
        };
        assert_eq!(refused(|_| {}), None);
        for change in [
            (|w| w.disk.serial = "S2".into()) as fn(&mut Wiped),
            |w| w.ordered = WipeMethod::Overwrite,
            |w| w.method = WipeMethod::Auto,
            |w| w.bytes -= 512,
            |w| w.read_back_bytes -= 512,
            |w| w.proof = WipeProof::Uniform,
            |w| w.proof = WipeProof::Marks { count: 9 },
            |w| w.passes = 0,
            |w| {
                w.method = WipeMethod::NvmeFormat;
                w.proof = WipeProof::Marks { count: 0 };
            },
        ] {
            assert!(refused(change).is_some());
        }
        assert_eq!(
            refused(|w| {
                w.method = WipeMethod::NvmeFormat;
                w.proof = WipeProof::Marks { count: 9 };
            }),
            None
        );
        let discard = WipeOrder {
            method: WipeMethod::Discard,
            ..WipeOrder::default()
        };
        let mut other = wiped(WipeMethod::Overwrite);
        other.ordered = WipeMethod::Discard;
        assert!(other.contradiction(&discard, &disk()).is_some());
    }

    #[test]
    fn the_sentence_says_what_how_and_how_proved() {
        insta::assert_snapshot!(wiped(WipeMethod::Overwrite).sentence(),
            @"1.00 GiB of /dev/sda wiped by overwrite (zeros) in 1 min 01 s: all 1.00 GiB were read back past the cache and are zeros");
    }
}
