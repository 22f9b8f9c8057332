//! Damaged, forged and changing containers that are opened at random: no wrong byte.
//!
//! Owns: what is noticed, and when. Does not own: whole containers (`open`).

mod opened;

use image::{Error, OpenImage, ReadAt, index};
use opened::{Sample, large, sample, usual, whole};
use std::io;
use std::sync::Mutex;

/// Changes the used map of the first page, whose sectors 1 and 2 become 0 and 1, and
/// corrects the checksums.
fn forge(bytes: &mut [u8]) {
    let at = bytes.windows(6).position(|w| w == b"DSec\x02\0").unwrap();
    let map = at + 32 + 4 + 12;
    assert_eq!(bytes[map..map + 7], [2, 9, 3, 0, 0, 0, 0b110]);
    bytes[map + 6] = 0b011;
    seal_section(bytes, at);
}

/// Corrects the checksums of the section at `at`.
fn seal_section(bytes: &mut [u8], at: usize) {
    let len = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
    let crc = crc32fast::hash(&bytes[at + 32..at + 32 + len]);
    bytes[at + 16..at + 20].copy_from_slice(&crc.to_le_bytes());
    let crc = crc32fast::hash(&bytes[at..at + 28]);
    bytes[at + 28..at + 32].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn a_forged_page_fails_the_proof_and_every_read_after_it() {
    let mut sample = large();
    let bytes = &mut sample.container;
    forge(bytes);
    let image = OpenImage::open(sample.container.clone()).unwrap();
    let mut buf = [0; 512];
    image.read_exact_at(&mut buf, 8192).unwrap();
    assert!(image.prove().unwrap_err().to_string().contains("root"));
    assert!(image.read_exact_at(&mut buf, 8192).is_err());
    assert!(image.used(0).next().unwrap().is_err());
    assert!(image.prove().is_err());
}

/// A source whose content is changed while it is open.
struct Changing(Mutex<Vec<u8>>);

impl ReadAt for &Changing {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.lock().unwrap().read_at(buf, offset)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }
}

#[test]
fn a_page_that_changed_since_it_was_given_out_is_noticed() {
    let sample = large();
    let mut forged = sample.container.clone();
    forge(&mut forged);
    let source = Changing(Mutex::new(forged));
    let image = OpenImage::open(&source).unwrap();
    image.read_exact_at(&mut [0; 512], 8192).unwrap();
    *source.0.lock().unwrap() = sample.container;
    let error = image.prove().unwrap_err().to_string();
    assert!(error.contains("changed"), "{error}");
}

#[test]
fn of_a_damaged_or_cut_container_no_wrong_byte_comes() {
    for sample in [usual(7), large()] {
        let length = sample.container.len();
        for cut in (0..length).step_by(1 + length / 50).chain([length - 1]) {
            assert!(OpenImage::open(&sample.container[..cut]).is_err(), "{cut}");
        }
        let mut longer = sample.container.clone();
        longer.push(0);
        assert!(OpenImage::open(longer).is_err());
        let (mut opened, mut refused) = (0, 0);
        for at in (0..length).step_by(1 + length / 400) {
            let mut bytes = sample.container.clone();
            bytes[at] ^= 0x10;
            let Ok(image) = OpenImage::open(bytes) else {
                continue;
            };
            opened += 1;
            // Without the proof too: what is damaged has a checksum. The record of a chunk
            // that occurs twice may not be wanted at all.
            match whole(&image) {
                Err(Error::Damaged { .. }) => refused += 1,
                Err(other) => panic!("{other}"),
                Ok(disk) => assert!(disk == sample.disk, "flip at {at}"),
            }
        }
        assert!(refused > opened / 2, "{refused} of {opened}");
    }
}

/// Where the records stand, from the first of the only page on, and its list section.
fn records(bytes: &[u8]) -> (Vec<usize>, usize) {
    let footer = bytes.len() - index::FOOTER_LEN;
    let (at, _) = index::decode_footer(bytes[footer..].try_into().unwrap(), 0).unwrap();
    let place = index::decode(&bytes[at as usize + 32..footer], at).unwrap()[0];
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let mut next = place.map as usize + 32 + number(place.map as usize + 8);
    let mut starts = Vec::new();
    while next < place.list as usize {
        starts.push(next);
        next += 64 + number(next + 12);
    }
    (starts, place.list as usize)
}

/// A page of four whole cells, none of which compresses: records of one length.
fn four_cells() -> Sample {
    let mut sample = sample(4 << 16, &[], &[(0, 4 << 16, vec![(0, 4 << 16)])], 4);
    let (starts, list) = records(&sample.container);
    assert_eq!(starts.len(), 4);
    assert!(starts[3] + 64 < list);
    sample.used.clear();
    sample
}

#[test]
fn records_in_each_others_place_are_refused() {
    let mut sample = four_cells();
    let (starts, _) = records(&sample.container);
    // Two neighbours, each whole and of its own name, change places.
    let second = sample.container[starts[1]..starts[2]].to_vec();
    let third = sample.container[starts[2]..starts[3]].to_vec();
    let swapped = [third, second].concat();
    sample.container[starts[1]..starts[3]].copy_from_slice(&swapped);
    let image = OpenImage::open(sample.container).unwrap();
    let mut buf = vec![0; 1000];
    image.read_exact_at(&mut buf, 0).unwrap();
    for cell in 1..3 {
        let error = image.read_exact_at(&mut buf, cell << 16).unwrap_err();
        assert!(error.to_string().contains("does not name"), "{error}");
    }
}

#[test]
fn bytes_between_the_records_and_their_list_are_refused() {
    let sample = four_cells();
    let (_, list) = records(&sample.container);
    let mut bytes = sample.container;
    bytes.splice(list..list, [0; 16]);
    // Index and footer say where the list stands now.
    let footer = bytes.len() - index::FOOTER_LEN;
    let old: [u8; 32] = bytes[footer..].try_into().unwrap();
    let at = index::decode_footer(&old, 0).unwrap().0 as usize + 16;
    let mut places = index::decode(&bytes[at + 32..footer], at as u64).unwrap();
    places[0].list += 16;
    bytes[at + 32..footer].copy_from_slice(&index::encode(&places));
    seal_section(&mut bytes, at);
    let length = bytes.len() as u64;
    bytes[footer..].copy_from_slice(&index::encode_footer(at as u64, length));
    let image = OpenImage::open(bytes).unwrap();
    let mut buf = vec![0; 1000];
    image.read_exact_at(&mut buf, 0).unwrap();
    let error = image.read_exact_at(&mut buf, 3 << 16).unwrap_err();
    assert!(error.to_string().contains("leaves its page"), "{error}");
}
