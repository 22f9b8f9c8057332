//! Uploads and manifests that were changed on their way: what becomes an image is the image.
//!
//! Owns: changed requests of a backup, with right checksums too. Does not own: changed
//! answers (the imager), changed files (the image crate).

use super::{CELL, Fixture, Sample, names, sample_of};
use image::manifest::ManifestReader;
use image::record::{Compression, Decoder, Encoder, HEADER_LEN, RecordReader};
use image::{Hash, Root};
use testkit::build::Random;

const TRIALS: u64 = 250;
const TRIALS_IN_LONG_RUNS: u64 = 10_000;
const CHUNKS: u64 = 3;

fn below(random: &mut Random, limit: usize) -> usize {
    random.below(limit.max(1) as u64) as usize
}

fn bytes_changed(mut bytes: Vec<u8>, random: &mut Random) -> Vec<u8> {
    let at = below(random, bytes.len());
    match random.below(5) {
        0 | 1 => bytes[at] ^= 1 << random.below(8),
        2 => bytes.truncate(at),
        3 => {
            let end = (at + 1 + below(random, 200)).min(bytes.len());
            bytes.drain(at..end);
        }
        _ => {
            let again = bytes[at..(at + 300).min(bytes.len())].to_vec();
            let place = below(random, bytes.len());
            bytes.splice(place..place, again);
        }
    }
    bytes
}

fn with_right_checksums(record: &mut [u8]) {
    let sum = crc32fast::hash(&record[HEADER_LEN..]).to_le_bytes();
    record[48..52].copy_from_slice(&sum);
    let sum = crc32fast::hash(&record[..HEADER_LEN - 4]).to_le_bytes();
    record[HEADER_LEN - 4..HEADER_LEN].copy_from_slice(&sum);
}

/// The records of a backup, changed.
fn records_changed(sample: &Sample, random: &mut Random) -> Vec<u8> {
    let mut records = sample.records.clone();
    let (one, other) = (below(random, records.len()), below(random, records.len()));
    match random.below(6) {
        0 => records.swap(one, other),
        1 => drop(records.remove(one)),
        2 => records.insert(other, records[one].clone()),
        3 => {
            // Something else under the right name.
            let mut forged = Vec::new();
            let mut plain = vec![0; CELL as usize];
            random.fill(&mut plain);
            let mut encoder = Encoder::new(Compression::Zstd(1)).unwrap();
            encoder
                .encode_named(&plain, sample.chunks[one].name, &mut forged)
                .unwrap();
            records[one] = forged;
        }
        4 => {
            let record = &mut records[one];
            let at = HEADER_LEN + below(random, record.len() - HEADER_LEN);
            record[at] ^= 1 << random.below(8);
            with_right_checksums(record);
        }
        _ => return bytes_changed(records.concat(), random),
    }
    records.concat()
}

fn root_of(manifest: &[u8]) -> Option<Root> {
    let mut reader = ManifestReader::open(manifest).ok()?;
    while reader.next_page().ok()?.is_some() {}
    reader.root()
}

/// What a target gets of an image, decoded.
async fn given(f: &Fixture, image: &str, wanted: &[Hash]) -> Vec<Vec<u8>> {
    let mut answer = f.store.fetch(image, wanted).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(part) = answer.frames.recv().await {
        bytes.extend_from_slice(&part.unwrap());
    }
    let mut records = RecordReader::new(&bytes[..], 0);
    let (mut decoder, mut payload, mut chunks) = (Decoder::new(), Vec::new(), Vec::new());
    while let Some(header) = records.next_record(&mut payload).unwrap() {
        let mut plain = Vec::new();
        assert_eq!(
            Some(&header.name),
            wanted.get(chunks.len()),
            "another chunk"
        );
        decoder.decode(&header, &payload, 0, &mut plain).unwrap();
        assert_eq!(Hash::of(&plain), header.name);
        chunks.push(plain);
    }
    chunks
}

#[tokio::test(flavor = "multi_thread")]
async fn no_changed_request_becomes_a_wrong_image() {
    let f = Fixture::new().await;
    let trials = match std::env::var_os("DEPLOY_LONG") {
        Some(_) => TRIALS_IN_LONG_RUNS,
        None => TRIALS,
    };
    let (mut refused, mut published) = (0, 0);
    for trial in 0..trials {
        let random = &mut Random::new(trial);
        let sample = sample_of(trial + 1, CHUNKS);
        let root = root_of(&sample.manifest).unwrap();
        let id = format!("e{trial}");
        let execution = f.backup(&id, &format!("image-{trial}")).await;
        let (bytes, manifest) = match trial % 2 {
            0 => (records_changed(&sample, random), sample.manifest.clone()),
            _ => {
                let manifest = bytes_changed(sample.manifest.clone(), random);
                (sample.records.concat(), manifest)
            }
        };
        // Records before a wrong one are kept; what counts is what the manifest finds.
        let _ = f.upload(&id, &bytes).await;
        match f.publish(&execution, &manifest).await {
            Ok(image) => {
                assert!(manifest == sample.manifest, "trial {trial}");
                let kept = std::fs::read(f.store.manifest_path(&image.image)).unwrap();
                assert_eq!(root_of(&kept), Some(root), "trial {trial}");
                let chunks = given(&f, &image.image, &names(&sample)).await;
                assert_eq!(chunks.len(), CHUNKS as usize, "trial {trial}");
                published += 1;
            }
            Err(_) => {
                refused += 1;
                // The same target tries again, and nothing of before is in its way.
                f.upload(&id, &sample.records.concat()).await.unwrap();
                let image = f.publish(&execution, &sample.manifest).await.unwrap();
                assert_eq!(given(&f, &image.image, &names(&sample)).await.len(), 3);
            }
        }
        assert_eq!(
            f.visible().await as u64,
            trial + 1,
            "one image for each backup"
        );
    }
    println!("{trials} changed backups: {refused} refused and repeated, {published} unharmed");
    assert!(refused > trials / 2 && published > 0);
}
