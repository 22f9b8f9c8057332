//! What a partition's number means.
//!
//! Owns: counting with or without hidden partitions, in both directions. Does not own:
//! who is hidden (the partition table says so).

/// How the partitions of one disk or image are numbered.
#[derive(Clone, Debug)]
pub struct Numbering {
    /// Number in the table and whether the partition is hidden, by number.
    parts: Vec<(u32, bool)>,
    /// Only visible ones count.
    visible: bool,
}

impl Numbering {
    /// Of partitions given as number in the table and whether they are hidden.
    pub fn new(parts: impl IntoIterator<Item = (u32, bool)>, visible: bool) -> Self {
        let mut parts: Vec<_> = parts.into_iter().collect();
        parts.sort_unstable();
        Numbering { parts, visible }
    }

    /// The number in the table that a given number means; `None` if it means nothing.
    pub fn table_number(&self, given: u32) -> Option<u32> {
        let mut numbers = self.parts.iter().map(|&(number, _)| number);
        numbers.find(|&number| self.given(number) == Some(given))
    }

    /// The number that means this one of the table; hidden partitions may have none.
    pub fn given(&self, number: u32) -> Option<u32> {
        let place = self.parts.iter().position(|&(n, _)| n == number)?;
        if !self.visible {
            return Some(number);
        }
        let (before, this) = self.parts.split_at(place);
        if this.first().is_some_and(|&(_, hidden)| hidden) {
            return None;
        }
        let visible = before.iter().filter(|(_, hidden)| !hidden).count();
        u32::try_from(visible + 1).ok()
    }

    /// A partition of the table as it is named to people: `2`, or `2 (3 in the table)`,
    /// or `hidden (1 in the table)`.
    pub fn name(&self, number: u32) -> String {
        match self.given(number) {
            Some(given) if !self.visible => given.to_string(),
            Some(given) => format!("{given} ({number} in the table)"),
            None => format!("hidden ({number} in the table)"),
        }
    }

    /// Whether hidden partitions are left out.
    pub fn counts_visible(&self) -> bool {
        self.visible
    }
}

#[cfg(test)]
mod tests {
    use super::Numbering;

    const PARTS: [(u32, bool); 4] = [(5, false), (1, true), (2, false), (7, true)];

    #[test]
    fn as_in_the_table() {
        let all = Numbering::new(PARTS, false);
        assert_eq!(all.table_number(1), Some(1));
        assert_eq!(all.table_number(3), None);
        assert_eq!((all.given(7), all.given(3)), (Some(7), None));
        assert_eq!(all.name(7), "7");
    }

    #[test]
    fn without_the_hidden_ones() {
        let visible = Numbering::new(PARTS, true);
        let meant: Vec<_> = (0..4).map(|given| visible.table_number(given)).collect();
        assert_eq!(meant, [None, Some(2), Some(5), None]);
        assert_eq!(visible.given(1), None);
        assert_eq!(visible.name(1), "hidden (1 in the table)");
        assert_eq!(visible.name(5), "2 (5 in the table)");
    }
}
