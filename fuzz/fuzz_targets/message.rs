//! Messages between target and server: any JSON. What is understood is said again the
//! same way.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;

fn understand<T: DeserializeOwned + Serialize + PartialEq + Debug>(data: &[u8]) {
    if let Ok(message) = serde_json::from_slice::<T>(data) {
        let again = serde_json::to_vec(&message).expect("a message can be said");
        assert_eq!(
            serde_json::from_slice::<T>(&again).expect("and understood"),
            message
        );
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&kind, json)) = data.split_first() else {
        return;
    };
    match kind % 8 {
        0 => understand::<wire::message::CheckIn>(json),
        1 => understand::<wire::message::CheckInReply>(json),
        2 => understand::<wire::message::Progress>(json),
        3 => understand::<wire::message::Finish>(json),
        4 => understand::<wire::message::OldTables>(json),
        5 => understand::<wire::message::DiskCheck>(json),
        6 => understand::<wire::message::BeginWrite>(json),
        _ => understand::<wire::Report>(json),
    }
});
