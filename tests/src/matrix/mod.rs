//! The matrix: every file system, sector size, table and state, there and back.
//!
//! Owns: the axes, which combinations there are, and the choice of a part of them in
//! which every pair of values still occurs. Does not own: how a file system is made
//! ([`formats`]) or what has to hold after a restore ([`trip`]).

pub mod content;
pub mod formats;
pub mod trip;

use formats::Format;
use std::collections::BTreeSet;
use std::fmt;

/// What is around the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Nothing: the disk is the file system.
    None,
    /// A GUID partition table.
    Gpt,
    /// A primary partition of an MBR.
    Mbr,
    /// A logical partition of an MBR.
    Logical,
}

/// How the file system was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Unmounted.
    Clean,
    /// Copied in use, or marked as such.
    Unclean,
}

/// One cell of the matrix.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The file system.
    pub format: &'static Format,
    /// Logical sector size in bytes.
    pub sector: u32,
    /// The table.
    pub table: Table,
    /// The state.
    pub state: State,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Case {
            format,
            sector,
            table,
            state,
        } = self;
        write!(f, "{} {sector} {table:?} {state:?}", format.name)
    }
}

/// Every combination that exists.
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for format in formats::FORMATS {
        for sector in [512, 4096] {
            for table in [Table::None, Table::Gpt, Table::Mbr, Table::Logical] {
                for state in [State::Clean, State::Unclean] {
                    let case = Case {
                        format,
                        sector,
                        table,
                        state,
                    };
                    if format.exists(sector, state) {
                        cases.push(case);
                    }
                }
            }
        }
    }
    cases
}

/// Pairs of values of two axes, as `(axis and value, axis and value)`.
type Pair = (String, String);

fn pairs(case: &Case) -> Vec<Pair> {
    let values = [
        format!("format {}", case.format.name),
        format!("sector {}", case.sector),
        format!("table {:?}", case.table),
        format!("state {:?}", case.state),
    ];
    let mut pairs = Vec::new();
    for (index, left) in values.iter().enumerate() {
        pairs.extend(
            values[index + 1..]
                .iter()
                .map(|right| (left.clone(), right.clone())),
        );
    }
    pairs
}

/// A small part of the cases in which every pair of values of any two axes that occurs
/// in all of them occurs too. Greedy, and the same every time.
pub fn pairwise(cases: &[Case]) -> Vec<Case> {
    let mut missing: BTreeSet<Pair> = cases.iter().flat_map(pairs).collect();
    let mut chosen = Vec::new();
    while !missing.is_empty() {
        let gain = |case: &Case| {
            pairs(case)
                .iter()
                .filter(|pair| missing.contains(*pair))
                .count()
        };
        // Ties go to the first one.
        let Some(best) = cases.iter().rev().max_by_key(|case| gain(case)) else {
            break;
        };
        for pair in pairs(best) {
            missing.remove(&pair);
        }
        chosen.push(*best);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::{all, pairs, pairwise};
    use std::collections::BTreeSet;

    #[test]
    fn the_chosen_part_has_every_pair_and_is_small() {
        let cases = all();
        let chosen = pairwise(&cases);
        let every: BTreeSet<_> = cases.iter().flat_map(pairs).collect();
        let had: BTreeSet<_> = chosen.iter().flat_map(pairs).collect();
        assert_eq!(every, had);
        assert!(
            chosen.len() * 2 < cases.len(),
            "{} of {}",
            chosen.len(),
            cases.len()
        );
    }
}
