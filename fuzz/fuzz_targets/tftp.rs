//! TFTP packets, and the course of a transfer under any packets. The modules stand
//! alone, so the server and what it links need not be built here.
#![no_main]

#[allow(dead_code)]
#[path = "../../server/src/netboot/tftp/negotiate.rs"]
mod negotiate;
#[allow(dead_code)]
#[path = "../../server/src/netboot/tftp/packet.rs"]
mod packet;
#[allow(dead_code)]
#[path = "../../server/src/netboot/tftp/transfer.rs"]
mod transfer;

use libfuzzer_sys::fuzz_target;
use packet::{Packet, Request};
use transfer::{Step, Transfer};

fuzz_target!(|data: &[u8]| {
    if let Ok(packet) = Packet::decode(data) {
        let lossy = matches!(packet, Packet::Error { .. } | Packet::OptionAck(_) | Packet::Read(_) | Packet::Write(_));
        // Padding and empty pairs of options are not written again.
        if !lossy {
            assert_eq!(Packet::decode(&packet.encode()), Ok(packet));
        }
    }
    // A request, then packets of up to 8 bytes each.
    let Some((&[size, length], rest)) = data.split_first_chunk::<2>() else { return };
    let Some((head, tail)) = rest.split_at_checked(usize::from(length)) else { return };
    let request = match Packet::decode(&[b"\0\x01f\0octet\0", head].concat()) {
        Ok(Packet::Read(request)) => request,
        _ => Request { file: String::new(), mode: String::new(), options: Vec::new() },
    };
    let size = u64::from(size) << (size & 31);
    let (mut transfer, mut step) = Transfer::begin(&request, size);
    for bytes in tail.chunks(4) {
        match step {
            Step::SendBlocks(blocks) => {
                assert!(!blocks.is_empty() && blocks.end() - blocks.start() < 32);
                let (offset, length) = transfer.place(*blocks.end());
                assert!(length <= 1468 && offset + length as u64 <= size);
            }
            Step::Done | Step::Aborted(_) | Step::GivenUp => return,
            Step::SendOptions | Step::Wait => {}
        }
        assert!(transfer.wait().as_secs() >= 1);
        step = match Packet::decode(bytes) {
            Ok(packet) => transfer.on_packet(&packet),
            Err(_) => transfer.on_timeout(),
        };
    }
});
