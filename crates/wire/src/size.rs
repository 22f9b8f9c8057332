//! Sizes, rates and durations as people read and write them.
//!
//! Owns: the text forms. Does not own: any measuring.

/// Bytes with a binary unit: `1.5 GiB`. Exact below 10 KiB.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if n < 10 * 1024 {
        return format!("{n} bytes");
    }
    let mut value = n as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value < 10.0 {
        format!("{value:.2} {}", UNITS[unit])
    } else if value < 100.0 {
        format!("{value:.1} {}", UNITS[unit])
    } else {
        format!("{value:.0} {}", UNITS[unit])
    }
}

/// A number of bytes as people write it: digits, then nothing or one of `K`, `M`, `G`, `T`
/// (powers of 1024), then nothing, `B` or `iB`.
///
/// # Errors
/// What is wrong, in words.
pub fn parse(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size; sizes are like 4096, 50M or 2GiB");
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let (prefix, rest) = match unit.chars().next() {
        Some(first) => (
            "KMGT".find(first.to_ascii_uppercase()),
            &unit[first.len_utf8()..],
        ),
        None => return Ok(number),
    };
    let shift = match (prefix, rest) {
        (Some(at), "" | "B" | "iB") => 10 * (at as u32 + 1),
        (None, "") if unit == "B" => 0,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| format!("{text:?} is more than any size can be"))
}

/// Seconds as `47 s`, `3 min 05 s`, `2 h 07 min`.
pub fn duration(seconds: u64) -> String {
    if seconds < 60 {
        format!("{seconds} s")
    } else if seconds < 3600 {
        format!("{} min {:02} s", seconds / 60, seconds % 60)
    } else {
        format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60)
    }
}

#[cfg(test)]
mod tests {
    use super::{bytes, duration, parse};

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, number) in [
            ("0", 0),
            ("4096", 4096),
            ("4096B", 4096),
            ("50M", 50 << 20),
            ("50m", 50 << 20),
            ("2GiB", 2 << 30),
            ("1TB", 1 << 40),
        ] {
            assert_eq!(parse(text), Ok(number), "{text}");
        }
        for text in [
            "",
            "M",
            "-1",
            "5X",
            "5MX",
            "5 M",
            "1.5G",
            "99999999999999999999",
            "99999999999T",
            "5ü",
            "KK",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(bytes(0), "0 bytes");
        assert_eq!(bytes(4096), "4096 bytes");
        assert_eq!(bytes(1 << 20), "1.00 MiB");
        assert_eq!(bytes(10_737_418_240), "10.0 GiB");
        assert_eq!(bytes(u64::MAX), "16384 PiB");
    }

    #[test]
    fn durations_read_well() {
        assert_eq!(duration(59), "59 s");
        assert_eq!(duration(185), "3 min 05 s");
        assert_eq!(duration(7620), "2 h 07 min");
    }
}
