//! Runs of equal bits in an allocation bitmap.
//!
//! Owns: the walk over a bitmap whose bits are numbered from the least significant bit
//! of its first byte on. Does not own: what a bit stands for, or where the bitmap is.

/// Calls `run(from, to, set)` for every run of equal bits among the first `bits`.
pub(super) fn for_each_run(bitmap: &[u8], bits: u64, mut run: impl FnMut(u64, u64, bool)) {
    let (mut from, mut current) = (0, bitmap.first().is_some_and(|b| b & 1 == 1));
    let bits = bits.min(bitmap.len() as u64 * 8);
    let mut at = 0;
    while at < bits {
        let same = if current { u64::MAX } else { 0 };
        if at % 64 == 0
            && bits - at >= 64
            && crate::bytes::le64(bitmap, (at / 8) as usize) == Some(same)
        {
            at += 64;
            continue;
        }
        let byte = bitmap[(at / 8) as usize];
        if at % 8 == 0 && bits - at >= 8 && byte == same as u8 {
            at += 8;
            continue;
        }
        let set = byte >> (at % 8) & 1 == 1;
        if set != current {
            run(from, at, current);
            (from, current) = (at, set);
        }
        at += 1;
    }
    if from < bits {
        run(from, bits, current);
    }
}

#[cfg(test)]
mod tests {
    use super::for_each_run;

    fn runs(bitmap: &[u8], bits: u64) -> Vec<(u64, u64, bool)> {
        let mut list = Vec::new();
        for_each_run(bitmap, bits, |from, to, set| list.push((from, to, set)));
        list
    }

    #[test]
    fn runs_cover_every_bit_once() {
        assert_eq!(
            runs(&[0xff, 0xff, 0x03], 24),
            [(0, 18, true), (18, 24, false)]
        );
        assert_eq!(runs(&[0x00, 0xf0], 16), [(0, 12, false), (12, 16, true)]);
        assert_eq!(
            runs(&[0x01, 0xff], 9),
            [(0, 1, true), (1, 8, false), (8, 9, true)]
        );
        assert_eq!(runs(&[0xff], 3), [(0, 3, true)]);
        assert_eq!(runs(&[0xff], 100), [(0, 8, true)]);
        assert_eq!(runs(&[], 8), []);
    }

    #[test]
    fn a_change_at_every_place_of_a_long_bitmap() {
        for change in 1..300u64 {
            let mut bitmap = [0u8; 38];
            (change..304).for_each(|i| bitmap[(i / 8) as usize] |= 1 << (i % 8));
            assert_eq!(
                runs(&bitmap, 303),
                [(0, change, false), (change, 303, true)]
            );
            bitmap.iter_mut().for_each(|byte| *byte = !*byte);
            assert_eq!(
                runs(&bitmap, 303),
                [(0, change, true), (change, 303, false)]
            );
        }
    }
}
