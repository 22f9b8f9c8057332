//! Which part of an image goes to which part of a disk.
//!
//! Owns: the shapes that a job, the operators' API and the command line share, and how
//! people write them. Does not own: the checks (the `imager`).

use crate::message::PartitionChoice;
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// What of a disk a restore replaces. The default is all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreScope {
    /// Only these partitions, into partitions that are there; empty is the whole disk.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<PartitionPair>,
    /// Partitions of the disk that stay as they are while the others are replaced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<PartitionChoice>,
    /// A partition that grows into the free space behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grow: Option<GrowChoice>,
    /// Numbers count only partitions that are not hidden.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub number_visible: bool,
}

impl RestoreScope {
    /// Whether it is an ordinary restore of a whole disk, as every version knows it.
    pub fn is_default(&self) -> bool {
        *self == RestoreScope::default()
    }
}

/// A partition of the image and the one of the disk that it goes to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionPair {
    /// The image's.
    pub image: PartitionChoice,
    /// The disk's.
    pub disk: PartitionChoice,
}

impl FromStr for PartitionPair {
    type Err = String;

    /// `2`, or `2=5`: the image's 2 into the disk's 5; with `,start=...` and so on, which
    /// speak of the disk's.
    fn from_str(text: &str) -> Result<Self, String> {
        let (numbers, fields) = match text.split_once(',') {
            Some((numbers, fields)) => (numbers, format!(",{fields}")),
            None => (text, String::new()),
        };
        let (image, disk) = numbers.split_once('=').unwrap_or((numbers, numbers));
        Ok(PartitionPair {
            image: image.parse()?,
            disk: format!("{disk}{fields}").parse()?,
        })
    }
}

impl From<u32> for PartitionChoice {
    fn from(number: u32) -> Self {
        PartitionChoice {
            number,
            ..PartitionChoice::default()
        }
    }
}

impl FromStr for PartitionChoice {
    type Err = String;

    /// `NUMBER`, or `NUMBER,guid=GUID,start=BYTES,type=TYPE` with any of the three.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut fields = text.split(',');
        let number = fields.next().unwrap_or_default().trim();
        let number: u32 = number
            .parse()
            .map_err(|_| format!("{number:?} is no partition number"))?;
        let mut choice = PartitionChoice::from(number);
        for field in fields {
            match field.split_once('=') {
                Some(("guid", value)) => choice.guid = Some(value.to_owned()),
                Some(("type", value)) => choice.part_type = Some(value.to_owned()),
                Some(("start", value)) => {
                    let start = value.parse().map_err(|_| "start= wants bytes")?;
                    choice.start_bytes = Some(start);
                }
                _ => return Err(format!("{field:?} is none of guid=, start=, type=")),
            }
        }
        Ok(choice)
    }
}

/// Which partition grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GrowChoice {
    /// The one that is last on the disk.
    Last,
    /// The one of that number.
    Partition(u32),
}

impl FromStr for GrowChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "last" {
            return Ok(GrowChoice::Last);
        }
        text.parse()
            .map(GrowChoice::Partition)
            .map_err(|_| format!("{text:?} is neither a partition number nor \"last\""))
    }
}

#[cfg(test)]
mod tests {
    use super::{GrowChoice, PartitionPair, RestoreScope};
    use crate::message::PartitionChoice;

    #[test]
    fn what_people_write() {
        let pair = |text: &str| {
            text.parse::<PartitionPair>()
                .map(|c| (c.image.number, c.disk.number))
        };
        assert_eq!(pair("2"), Ok((2, 2)));
        assert_eq!(pair("2=5"), Ok((2, 5)));
        for bad in [
            "",
            "x",
            "2=",
            "=2",
            "2=5=6",
            "-1",
            "2=5,size=1",
            "2,start=x",
            "2,start",
        ] {
            assert!(pair(bad).is_err(), "{bad}");
        }
        let pair: PartitionPair = "1=2,start=1048576,guid=AB-C,type=0x83".parse().unwrap();
        let disk = PartitionChoice {
            number: 2,
            guid: Some("AB-C".into()),
            start_bytes: Some(1_048_576),
            part_type: Some("0x83".into()),
        };
        assert_eq!((pair.image, pair.disk), (1.into(), disk));
        assert_eq!("last".parse(), Ok(GrowChoice::Last));
        assert_eq!("3".parse(), Ok(GrowChoice::Partition(3)));
        assert!("first".parse::<GrowChoice>().is_err());
    }

    #[test]
    fn jobs_of_earlier_versions_are_read() {
        let old = r#"{"kind":"restore","disk":null,"image":"i","image_name":"n","root":"r",
            "verify":true,"force":false}"#;
        let job: crate::JobKind = serde_json::from_str(old).unwrap();
        let crate::JobKind::Restore { scope, .. } = &job else {
            panic!("{job:?}");
        };
        assert!(scope.is_default());
        assert!(!serde_json::to_string(&job).unwrap().contains("scope"));
    }

    #[test]
    fn a_restore_of_a_whole_disk_says_nothing_of_it() {
        let scope = RestoreScope::default();
        assert!(scope.is_default());
        assert_eq!(serde_json::to_string(&scope).unwrap(), "{}");
        assert_eq!(serde_json::from_str::<RestoreScope>("{}").unwrap(), scope);
        let scope = RestoreScope {
            partitions: vec!["2=5".parse().unwrap()],
            keep: vec!["3,start=4096".parse().unwrap()],
            grow: Some(GrowChoice::Partition(5)),
            number_visible: true,
        };
        let json = serde_json::to_string(&scope).unwrap();
        assert_eq!(
            json,
            r#"{"partitions":[{"image":{"number":2},"disk":{"number":5}}],"#.to_owned()
                + r#""keep":[{"number":3,"start_bytes":4096}],"grow":{"partition":5},"number_visible":true}"#
        );
        assert_eq!(serde_json::from_str::<RestoreScope>(&json).unwrap(), scope);
    }
}
