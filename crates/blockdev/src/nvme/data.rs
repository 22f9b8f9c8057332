//! What NVMe drives say of themselves.
//!
//! Owns: decoding the Identify Controller and Identify Namespace data structures and the
//! Sanitize Status log page (NVM Express Base Specification 2.0, NVM Command Set
//! Specification 1.0). Does not own: asking. Total on any bytes; what lies past the end
//! is 0.

/// What a controller can do to erase its drive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Controller {
    /// It has the command Format NVM.
    pub can_format: bool,
    /// A format formats all namespaces of the drive.
    pub format_is_of_all: bool,
    /// An erase by a format erases all namespaces of the drive.
    pub erase_is_of_all: bool,
    /// A format can erase cryptographically.
    pub can_format_crypto: bool,
    /// It can sanitize by a block erase.
    pub can_block_erase: bool,
    /// It can sanitize by a cryptographic erase.
    pub can_crypto_erase: bool,
    /// It can sanitize by overwriting.
    pub can_overwrite: bool,
    /// It manages namespaces: others than the attached ones may be there.
    pub manages_namespaces: bool,
}

/// How a namespace is formatted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Index of its format, 0 to 63.
    pub format_index: u8,
    /// Metadata stands at the end of each block.
    pub metadata_at_end_of_block: bool,
    /// Type of its protection information; 0 is none.
    pub protection: u8,
    /// Protection information stands first in the metadata.
    pub protection_first: bool,
    /// Percent that a format which runs has left, if the drive tells.
    pub format_left: Option<u8>,
}

/// What became of the last sanitize.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SanitizeState {
    /// There was none.
    Never,
    /// It ended well.
    Completed,
    /// It runs.
    InProgress,
    /// It failed.
    Failed,
    /// Something that this program does not know.
    Unknown(u8),
}

/// The Sanitize Status log page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SanitizeLog {
    /// What became of the last one.
    pub state: SanitizeState,
    /// How far the one that runs is, in parts of 65536.
    pub progress: u16,
    /// Command dword 10 of the last one.
    pub command: u32,
    /// Estimates in seconds for overwriting, block erase, cryptographic erase; none if the
    /// drive does not say.
    pub estimates: [Option<u32>; 3],
}

fn byte(data: &[u8], at: usize) -> u8 {
    data.get(at).copied().unwrap_or(0)
}

fn word(data: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([byte(data, at), byte(data, at + 1)])
}

fn dword(data: &[u8], at: usize) -> u32 {
    u32::from(word(data, at)) | u32::from(word(data, at + 2)) << 16
}

impl Controller {
    /// From the data structure of a controller.
    pub fn decode(data: &[u8]) -> Controller {
        let (oacs, fna, sanicap) = (word(data, 256), byte(data, 524), dword(data, 328));
        let bit = |value: u32, at: u32| value >> at & 1 == 1;
        Controller {
            can_format: bit(oacs.into(), 1),
            format_is_of_all: bit(fna.into(), 0),
            erase_is_of_all: bit(fna.into(), 1),
            can_format_crypto: bit(fna.into(), 2),
            can_crypto_erase: bit(sanicap, 0),
            can_block_erase: bit(sanicap, 1),
            can_overwrite: bit(sanicap, 2),
            manages_namespaces: bit(oacs.into(), 3),
        }
    }
}

impl Namespace {
    /// From the data structure of a namespace.
    pub fn decode(data: &[u8]) -> Namespace {
        let (formats, now) = (byte(data, 25), byte(data, 26));
        let (protection, left) = (byte(data, 29), byte(data, 32));
        // With 16 formats or fewer (the count is from 0) the upper bits mean nothing.
        let upper = match formats {
            0..16 => 0,
            _ => now >> 5 & 0b11,
        };
        Namespace {
            format_index: now & 0xf | upper << 4,
            metadata_at_end_of_block: now & 1 << 4 != 0,
            protection: protection & 0b111,
            protection_first: protection & 1 << 3 != 0,
            format_left: (left & 0x80 != 0).then_some((left & 0x7f).min(100)),
        }
    }
}

impl SanitizeLog {
    /// From the log page.
    pub fn decode(data: &[u8]) -> SanitizeLog {
        // 4: completed, without deallocating; the data is gone just the same.
        let state = match byte(data, 2) & 0b111 {
            0 => SanitizeState::Never,
            1 | 4 => SanitizeState::Completed,
            2 => SanitizeState::InProgress,
            3 => SanitizeState::Failed,
            other => SanitizeState::Unknown(other),
        };
        SanitizeLog {
            state,
            progress: word(data, 0),
            command: dword(data, 4),
            estimates: [8, 12, 16].map(|at| {
                let seconds = dword(data, at);
                (seconds != u32::MAX).then_some(seconds)
            }),
        }
    }
}

/// The ids of a list of namespaces, which a 0 ends.
pub(crate) fn namespace_list(data: &[u8]) -> Vec<u32> {
    let ids = data.chunks_exact(4).map(|id| dword(id, 0));
    ids.take_while(|&id| id != 0).collect()
}

#[cfg(test)]
mod tests {
    use super::{Controller, Namespace, SanitizeLog, SanitizeState, namespace_list};

    #[test]
    fn a_controller_s_bits() {
        let mut data = vec![0; 4096];
        assert_eq!(Controller::decode(&data), Controller::default());
        data[256] = 0b0000_1010; // OACS: Format NVM, Namespace Management
        data[524] = 0b110; // FNA: erase of all, cryptographic
        data[328] = 0b011; // SANICAP: crypto erase, block erase
        assert_eq!(
            Controller::decode(&data),
            Controller {
                can_format: true,
                format_is_of_all: false,
                erase_is_of_all: true,
                can_format_crypto: true,
                can_block_erase: true,
                can_crypto_erase: true,
                can_overwrite: false,
                manages_namespaces: true,
            }
        );
        data[328] = 0b100;
        data[524] = 0b001;
        let other = Controller::decode(&data);
        assert!(other.can_overwrite && !other.can_block_erase && !other.can_crypto_erase);
        assert!(other.format_is_of_all && !other.erase_is_of_all && !other.can_format_crypto);
    }

    #[test]
    fn a_namespace_s_format() {
        let mut data = vec![0; 4096];
        assert_eq!(Namespace::decode(&data), Namespace::default());
        data[25] = 3; // four formats
        data[26] = 0x72; // upper bits that mean nothing, metadata in line, format 2
        data[29] = 0b1010;
        data[32] = 0x80 | 40;
        let small = Namespace::decode(&data);
        assert_eq!(
            small,
            Namespace {
                format_index: 2,
                metadata_at_end_of_block: true,
                protection: 2,
                protection_first: true,
                format_left: Some(40),
            }
        );
        data[25] = 40;
        assert_eq!(Namespace::decode(&data).format_index, 0x32);
    }

    #[test]
    fn a_sanitize_s_state() {
        let mut data = vec![0; 512];
        data[8..20].fill(0xff);
        data[12..16].copy_from_slice(&90_u32.to_le_bytes());
        assert_eq!(
            SanitizeLog::decode(&data),
            SanitizeLog {
                state: SanitizeState::Never,
                progress: 0,
                command: 0,
                estimates: [None, Some(90), None],
            }
        );
        for (status, state) in [
            (1, SanitizeState::Completed),
            (2, SanitizeState::InProgress),
            (3, SanitizeState::Failed),
            (4, SanitizeState::Completed),
            (7, SanitizeState::Unknown(7)),
        ] {
            data[2] = status | 0b1111_1000; // passes of an overwriting
            assert_eq!(SanitizeLog::decode(&data).state, state);
        }
        data[0..2].copy_from_slice(&0x8000_u16.to_le_bytes());
        data[4] = 2;
        let log = SanitizeLog::decode(&data);
        assert_eq!((log.progress, log.command), (0x8000, 2));
    }

    #[test]
    fn any_bytes_of_any_length_are_decoded() {
        let mut state = 1_u64;
        for len in (0..600).chain([4095, 4096, 5000]) {
            let data: Vec<u8> = (0..len)
                .map(|_| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    state.to_le_bytes()[7]
                })
                .collect();
            Controller::decode(&data);
            assert!(Namespace::decode(&data).format_index < 64);
            SanitizeLog::decode(&data);
            assert!(namespace_list(&data).len() <= data.len() / 4);
        }
        assert_eq!(
            namespace_list(&[1, 0, 0, 0, 3, 1, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0]),
            [1, 259]
        );
    }
}
