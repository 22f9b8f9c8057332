//! Ranges of addresses that are leased.
//!
//! Owns: how people write them, what is refused, and which subnet they belong to. Does
//! not own: who has which address ([`super::table`]).

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// Most addresses of a range.
pub const MOST_ADDRESSES: u32 = 65_536;

/// A range as it is typed: `10.0.0.100-10.0.0.199`, with or without `/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    /// First address.
    pub first: Ipv4Addr,
    /// Last address.
    pub last: Ipv4Addr,
    /// Bits of the subnet, if they were named.
    pub prefix: Option<u8>,
}

impl FromStr for AddressRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form =
            || "a range is written as 10.0.0.100-10.0.0.199 or 10.0.0.100-10.0.0.199/24".to_owned();
        let (range, prefix) = match text.split_once('/') {
            Some((range, prefix)) => (range, Some(prefix.parse::<u8>().map_err(|_| form())?)),
            None => (text, None),
        };
        let (first, last) = range.split_once('-').ok_or_else(form)?;
        let address = |text: &str| text.trim().parse::<Ipv4Addr>().map_err(|_| form());
        let (first, last) = (address(first)?, address(last)?);
        let count = u32::from(last)
            .checked_sub(u32::from(first))
            .ok_or_else(|| format!("{last} comes before {first}"))?;
        if count >= MOST_ADDRESSES {
            return Err(format!("a range has at most {MOST_ADDRESSES} addresses"));
        }
        if prefix.is_some_and(|prefix| !(8..=30).contains(&prefix)) {
            return Err("a subnet has /8 to /30".to_owned());
        }
        Ok(AddressRange {
            first,
            last,
            prefix,
        })
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)?;
        match self.prefix {
            Some(prefix) => write!(f, "/{prefix}"),
            None => Ok(()),
        }
    }
}

/// A range in its subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    first: u32,
    last: u32,
    prefix: u8,
    routers: Vec<Ipv4Addr>,
    /// Addresses inside that others have for good.
    taken: Vec<Ipv4Addr>,
}

impl Pool {
    /// A range in the subnet of `prefix` bits. Of `routers` those count that are in it. The
    /// addresses in `taken`, and routers, are never leased.
    ///
    /// # Errors
    /// What is wrong with it: it leaves its subnet, or nothing is left of it.
    pub fn new(
        range: AddressRange,
        prefix: u8,
        routers: &[Ipv4Addr],
        taken: &[Ipv4Addr],
    ) -> Result<Pool, String> {
        let mut pool = Pool {
            first: u32::from(range.first),
            last: u32::from(range.last),
            prefix,
            routers: Vec::new(),
            taken: Vec::new(),
        };
        if !pool.reaches(range.last) {
            return Err(format!(
                "{range} is not inside one subnet of /{prefix}; name the subnet's bits behind a slash"
            ));
        }
        if range.first == pool.network() || range.last == pool.broadcast() {
            return Err(format!(
                "{range}: the first and the last address of a subnet are nobody's"
            ));
        }
        pool.routers = routers
            .iter()
            .copied()
            .filter(|ip| pool.reaches(*ip))
            .collect();
        pool.taken = taken.iter().chain(&pool.routers).copied().collect();
        if pool.size() == 0 {
            return Err(format!("{range} has no address to give"));
        }
        Ok(pool)
    }

    /// Whether an address is in the pool's subnet.
    pub fn reaches(&self, address: Ipv4Addr) -> bool {
        u32::from(address) & self.mask_bits() == self.first & self.mask_bits()
    }

    /// Whether an address is one of those that are given.
    pub fn holds(&self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&u32::from(address)) && !self.taken.contains(&address)
    }

    /// The addresses that are given, in order.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        (self.first..=self.last)
            .map(Ipv4Addr::from)
            .filter(|address| !self.taken.contains(address))
    }

    /// How many addresses are given.
    pub fn size(&self) -> usize {
        self.addresses().count()
    }

    /// Routers of the subnet.
    pub fn routers(&self) -> &[Ipv4Addr] {
        &self.routers
    }

    /// Mask of the subnet.
    pub fn mask(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.mask_bits())
    }

    /// Broadcast address of the subnet.
    pub fn broadcast(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.first | !self.mask_bits())
    }

    fn network(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.first & self.mask_bits())
    }

    fn mask_bits(&self) -> u32 {
        u32::MAX
            .checked_shl(32 - u32::from(self.prefix.min(32)))
            .unwrap_or(0)
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (Ipv4Addr::from(self.first), Ipv4Addr::from(self.last));
        write!(f, "{first}-{last}/{}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::{AddressRange, Pool};
    use std::net::Ipv4Addr;

    fn pool(text: &str) -> Result<Pool, String> {
        let range: AddressRange = text.parse()?;
        let (own, router) = (Ipv4Addr::new(10, 0, 0, 5), Ipv4Addr::new(10, 0, 0, 1));
        let far = Ipv4Addr::new(10, 9, 0, 1);
        Pool::new(range, range.prefix.unwrap_or(24), &[router, far], &[own])
    }

    #[test]
    fn a_range_has_its_subnet_and_leaves_out_who_is_there() {
        let pool = pool("10.0.0.1-10.0.0.9/28").unwrap();
        assert_eq!(pool.to_string(), "10.0.0.1-10.0.0.9/28");
        assert_eq!(pool.size(), 7, "without router and server");
        assert!(!pool.holds(Ipv4Addr::new(10, 0, 0, 5)) && pool.holds(Ipv4Addr::new(10, 0, 0, 9)));
        assert!(!pool.holds(Ipv4Addr::new(10, 0, 0, 10)));
        assert_eq!(pool.mask(), Ipv4Addr::new(255, 255, 255, 240));
        assert_eq!(pool.broadcast(), Ipv4Addr::new(10, 0, 0, 15));
        assert_eq!(pool.routers(), [Ipv4Addr::new(10, 0, 0, 1)]);
        assert!(pool.reaches(Ipv4Addr::new(10, 0, 0, 15)));
        assert!(!pool.reaches(Ipv4Addr::new(10, 0, 0, 16)));
    }

    #[test]
    fn what_cannot_be_a_range_is_refused() {
        for text in [
            "",
            "10.0.0.1",
            "10.0.0.9-10.0.0.1",
            "10.0.0.1-10.0.0.300",
            "10.0.0.1-10.0.0.9/x",
            "10.0.0.1-10.0.0.9/31",
            "10.0.0.1-10.0.0.9/7",
            "10.0.0.0-10.9.0.0/8",
            "10.0.0.1-10.0.1.9",
            "10.0.0.0-10.0.0.9",
            "10.0.0.9-10.0.0.255",
            "10.0.0.5-10.0.0.5",
        ] {
            assert!(pool(text).is_err(), "{text}");
        }
        assert!(pool("10.0.0.1-10.0.1.9/16").is_ok());
    }
}
