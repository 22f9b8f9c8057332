//! The order in which the servers of a service are tried (RFC 2782).
//!
//! Owns: priorities and weights. Does not own: where the records are from.

use super::dns::Srv;

/// Sorts by priority; among those of one priority draws by weight: `random(n)` gives a
/// number from 0 to n. Those without a port or a name (the service is not offered) are
/// left out.
pub fn order(mut list: Vec<Srv>, mut random: impl FnMut(u32) -> u32) -> Vec<Srv> {
    list.retain(|srv| srv.port != 0 && !srv.target.is_empty());
    // Within a priority those of weight 0 stand first, so that they have a chance at all.
    list.sort_by_key(|srv| (srv.priority, srv.weight));
    let mut ordered = Vec::with_capacity(list.len());
    while let Some(first) = list.first() {
        let priority = first.priority;
        let same = list.iter().take_while(|srv| srv.priority == priority);
        // At most 64 records of at most 65535.
        let total: u32 = same.map(|srv| u32::from(srv.weight)).sum();
        let drawn = random(total).min(total);
        let mut sum = 0;
        let reaches = |srv: &Srv| {
            sum += u32::from(srv.weight);
            sum >= drawn
        };
        // The last of the priority reaches the total.
        let at = list.iter().position(reaches).unwrap_or(0);
        ordered.push(list.remove(at));
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::order;
    use crate::target::discovery::dns::Srv;
    use proptest::prelude::*;

    fn srv(priority: u16, weight: u16, target: &str) -> Srv {
        Srv {
            priority,
            weight,
            port: 443,
            target: target.to_owned(),
        }
    }

    fn names(list: &[Srv]) -> Vec<&str> {
        list.iter().map(|srv| srv.target.as_str()).collect()
    }

    #[test]
    fn lower_priorities_come_first_whatever_their_weight() {
        let list = vec![srv(20, 0, "c"), srv(5, 9, "a"), srv(10, 1, "b")];
        for drawn in [0, 1, u32::MAX] {
            assert_eq!(names(&order(list.clone(), |_| drawn)), ["a", "b", "c"]);
        }
    }

    #[test]
    fn the_number_that_is_drawn_chooses_by_running_sums() {
        let list = vec![srv(0, 10, "ten"), srv(0, 0, "none"), srv(0, 30, "thirty")];
        let first = |drawn| order(list.clone(), |_| drawn)[0].target.clone();
        for (drawn, name) in [
            (0, "none"),
            (1, "ten"),
            (10, "ten"),
            (11, "thirty"),
            (40, "thirty"),
        ] {
            assert_eq!(first(drawn), name, "{drawn}");
        }
    }

    #[test]
    fn shares_follow_the_weights() {
        let list = vec![srv(0, 1, "one"), srv(0, 3, "three")];
        let mut state = 1_u64;
        let mut random = |max: u32| {
            // An ordinary linear congruential generator.
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            u32::try_from((state >> 33) % (u64::from(max) + 1)).unwrap()
        };
        let firsts = (0..4000).filter(|_| order(list.clone(), &mut random)[0].target == "three");
        let share = firsts.count();
        // Numbers 2 to 4 of 0 to 4: 60 %.
        assert!((2200..2600).contains(&share), "{share}");
    }

    #[test]
    fn what_is_not_offered_is_left_out() {
        let mut without_port = srv(0, 0, "x");
        without_port.port = 0;
        assert!(order(vec![srv(0, 0, ""), without_port], |_| 0).is_empty());
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_priorities_rise(
            list in proptest::collection::vec((0u16..4, any::<u16>()), 0..20),
            drawn in any::<u32>(),
        ) {
            let list: Vec<Srv> = list.iter().enumerate()
                .map(|(at, (priority, weight))| srv(*priority, *weight, &format!("h{at}")))
                .collect();
            let ordered = order(list.clone(), |max| drawn.checked_rem(max.saturating_add(1)).unwrap_or(0));
            prop_assert!(ordered.is_sorted_by_key(|srv| srv.priority));
            let (mut before, mut after) = (names(&list), names(&ordered));
            before.sort_unstable();
            after.sort_unstable();
            prop_assert_eq!(before, after);
        }
    }
}
