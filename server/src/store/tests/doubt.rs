//! Tests of records that a target doubts.

use super::{Fixture, names, sample};
use image::record::{HEADER_LEN, RecordHeader};
use wire::{Code, Reread};

impl Fixture {
    /// Changes the record that stands there so that nothing is seen of it but by who knows
    /// the bytes that it should give.
    fn spoil(&self, at: usize) {
        let pack = self
            .dir
            .path()
            .join("images/packs")
            .join(&self.files("packs")[0]);
        let mut bytes = std::fs::read(&pack).unwrap();
        let record = &mut bytes[at..];
        let (head, rest) = record.split_first_chunk_mut::<HEADER_LEN>().unwrap();
        let mut header = RecordHeader::decode(head, 0).unwrap();
        let payload = &mut rest[..header.stored_len as usize];
        payload[1000] ^= 1;
        header.payload_crc = crc32fast::hash(payload);
        *head = header.encode();
        std::fs::write(pack, bytes).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_target_doubts_is_read_again_and_marked_only_if_it_is_damaged() {
    let f = Fixture::new().await;
    let e = f.backup("e1", "gold").await;
    let s = sample(1, 4);
    f.upload("e1", &s.records.concat()).await.unwrap();
    let image = f.publish(&e, &s.manifest).await.unwrap().image;
    let names = names(&s);
    f.spoil(32);
    // The record's own check says nothing: it is sent.
    let mut records = f.store.fetch(&image, &names).await.unwrap();
    let mut sent = 0;
    while let Some(frame) = records.frames.recv().await {
        sent += frame.unwrap().len();
    }
    assert_eq!(sent, s.records.concat().len());
    assert!(f.store.scrub_view().await.unwrap().is_clean());

    // Anybody may say anything of the whole ones.
    let doubt = async |names: &[image::Hash]| f.store.reread(&image, names).await;
    let whole = |whole, damaged| Reread { whole, damaged };
    assert_eq!(doubt(&names[1..]).await.unwrap(), whole(3, 0));
    assert!(f.store.scrub_view().await.unwrap().is_clean());
    let twice = [names[0], names[1], names[0]];
    assert_eq!(doubt(&twice).await.unwrap(), whole(1, 1));
    let view = f.store.scrub_view().await.unwrap();
    assert_eq!(view.damaged_chunks, 1);
    assert_eq!(view.damaged[0].images, [format!("gold ({image})")]);
    assert_eq!(f.store.have("e1", &names).await.unwrap(), [0b1110]);
    let failure = f.store.fetch(&image, &names).await.err().unwrap();
    assert_eq!(failure.report.code, Code::ImageDamaged);

    // Nobody learns of other images' chunks.
    let foreign = doubt(&[image::Hash([7; 32])]).await.unwrap_err();
    assert_eq!(foreign.report.code, Code::ServerRefused);
    f.upload("e1", &s.records[0]).await.unwrap();
    assert_eq!(doubt(&names).await.unwrap(), whole(4, 0));
}
