//! The boot sector: sizes of sector, cluster and record, and where the file table is.
//!
//! Owns: telling an NTFS boot sector from others, and whether its figures make sense.
//! Does not own: the copy of it behind the last cluster, which is kept and not read.

use crate::bytes::{array, has, le16, le64};
use crate::view::{ReadFailure, View};

/// Largest cluster that Windows makes, in bytes.
const MAX_CLUSTER: u64 = 2 << 20;

/// Most clusters of a volume.
const MAX_CLUSTERS: u64 = u32::MAX as u64;

/// Sizes of a file record that are believed, in bytes; all in use are 1024 or 4096.
const RECORD_SIZES: std::ops::RangeInclusive<u64> = 512..=4096;

/// What a boot sector tells. Sizes in bytes, places in clusters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Boot {
    /// Bytes in a sector.
    pub sector: u64,
    /// Bytes in a cluster.
    pub cluster: u64,
    /// Whole clusters of the volume.
    pub clusters: u64,
    /// Bytes of the volume; the copy of the boot sector lies behind them.
    pub size: u64,
    /// First cluster of the file table.
    pub table: u64,
    /// First cluster of the copy of its first records.
    pub mirror: u64,
    /// Bytes in a file record.
    pub record: u64,
    /// Serial number.
    pub serial: u64,
}

impl Boot {
    /// Reads the boot sector; `None` if it is not of NTFS, the inner error if it is and
    /// its figures make no sense.
    pub fn read(view: &View<'_>) -> Result<Option<Result<Boot, String>>, ReadFailure> {
        let bytes = view.bytes_up_to(0, 512)?;
        Ok(has(&bytes, 3, b"NTFS    ").then(|| Boot::decode(&bytes)))
    }

    /// The figures of a boot sector of 512 bytes.
    fn decode(bytes: &[u8]) -> Result<Boot, String> {
        let short = || "its boot sector is cut off".to_string();
        let sector = u64::from(le16(bytes, 11).ok_or_else(short)?);
        if !matches!(sector, 512 | 1024 | 2048 | 4096) {
            return Err(format!("its boot sector has sectors of {sector} bytes"));
        }
        let [code] = array(bytes, 13).ok_or_else(short)?;
        let per_cluster = sectors_per_cluster(code);
        let cluster = per_cluster.and_then(|n| n.checked_mul(sector));
        let Some(cluster) = cluster.filter(|&cluster| cluster <= MAX_CLUSTER) else {
            return Err(format!(
                "its boot sector has the code {code:#04x} for the cluster size"
            ));
        };
        let [record] = array(bytes, 64).ok_or_else(short)?;
        let record_size = record_size(record, cluster);
        let Some(record) = record_size.filter(|size| RECORD_SIZES.contains(size)) else {
            return Err(format!(
                "its boot sector has the code {record:#04x} for the record size"
            ));
        };
        let sectors = le64(bytes, 40).ok_or_else(short)?;
        let Some(size) = sectors
            .checked_mul(sector)
            .filter(|&s| s <= i64::MAX as u64)
        else {
            return Err(format!("its boot sector has {sectors} sectors"));
        };
        let clusters = size / cluster;
        if clusters > MAX_CLUSTERS {
            return Err(format!("its boot sector has {clusters} clusters"));
        }
        let boot = Boot {
            sector,
            cluster,
            clusters,
            size,
            table: le64(bytes, 48).ok_or_else(short)?,
            mirror: le64(bytes, 56).ok_or_else(short)?,
            record,
            serial: le64(bytes, 72).ok_or_else(short)?,
        };
        for (what, place) in [("file table", boot.table), ("mirror", boot.mirror)] {
            if place == 0 || place >= boot.clusters {
                return Err(format!(
                    "its boot sector has the {what} at cluster {place} of {}",
                    boot.clusters
                ));
            }
        }
        Ok(boot)
    }
}

/// Sectors in a cluster: a power of two up to 128, or from 0x81 on the negated exponent.
fn sectors_per_cluster(code: u8) -> Option<u64> {
    match code {
        0..=0x80 => code.is_power_of_two().then_some(u64::from(code)),
        _ => 1u64.checked_shl(256 - u32::from(code)),
    }
}

/// Bytes in a record: a count of clusters, or the negated exponent of the bytes.
fn record_size(code: u8, cluster: u64) -> Option<u64> {
    match code {
        0..0x80 => code
            .is_power_of_two()
            .then(|| u64::from(code).checked_mul(cluster))?,
        _ => 1u64.checked_shl(256 - u32::from(code)),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::{Boot, record_size, sectors_per_cluster};
    use crate::bytes::put;

    /// A boot sector of 1000 sectors with clusters of 4096 bytes.
    pub(in crate::fs::ntfs) fn boot() -> Vec<u8> {
        let mut bytes = vec![0u8; 512];
        put(&mut bytes, 3, b"NTFS    ");
        put(&mut bytes, 11, &512u16.to_le_bytes());
        put(&mut bytes, 13, &[8]);
        put(&mut bytes, 40, &1000u64.to_le_bytes());
        put(&mut bytes, 48, &4u64.to_le_bytes());
        put(&mut bytes, 56, &60u64.to_le_bytes());
        put(&mut bytes, 64, &[0xf6]);
        put(&mut bytes, 72, &0x1234u64.to_le_bytes());
        bytes
    }

    #[test]
    fn figures_of_a_usual_one() {
        let boot = Boot::decode(&boot()).unwrap();
        assert_eq!((boot.sector, boot.cluster, boot.record), (512, 4096, 1024));
        assert_eq!((boot.clusters, boot.size), (125, 512_000));
        assert_eq!((boot.table, boot.mirror, boot.serial), (4, 60, 0x1234));
    }

    #[test]
    fn cluster_codes_of_both_kinds() {
        let sizes: Vec<_> = [1, 8, 0x80, 0xf8, 0xf7, 0xf4]
            .map(|code| sectors_per_cluster(code).unwrap() * 512)
            .into();
        assert_eq!(sizes, [512, 4096, 65536, 131_072, 262_144, 2 << 20]);
        assert_eq!(sectors_per_cluster(3), None);
        assert_eq!(sectors_per_cluster(0), None);
        assert_eq!(sectors_per_cluster(0x81), None);
        assert_eq!(sectors_per_cluster(0xc1), Some(1 << 63));
        assert_eq!(record_size(0xf6, 4096), Some(1024));
        assert_eq!(record_size(2, 512), Some(1024));
        assert_eq!(record_size(0x80, 512), None);
    }

    #[test]
    fn figures_without_sense_are_named() {
        let cases: [(usize, &[u8], &str); 8] = [
            (11, &[0, 1], "sectors of 256 bytes"),
            (13, &[3], "0x03 for the cluster size"),
            (13, &[0xf3], "0xf3 for the cluster size"),
            (40, &[0xff; 8], "sectors"),
            (48, &[0; 8], "file table at cluster 0 of 125"),
            (48, &[125], "file table at cluster 125 of 125"),
            (56, &[0xff; 8], "mirror"),
            (64, &[0xe0], "0xe0 for the record size"),
        ];
        for (at, bytes, words) in cases {
            let mut sector = boot();
            put(&mut sector, at, bytes);
            let error = Boot::decode(&sector).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
