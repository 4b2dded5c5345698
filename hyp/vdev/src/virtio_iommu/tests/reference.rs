//! Random requests against what the specification says of them.

use std::{collections::BTreeMap, vec::Vec};

use bulkhead_core::addr::PAGE_SIZE;
use proptest::prelude::{Strategy, any, prop_oneof, proptest};

use super::{super::Reach, ENDPOINTS, FAULT, Guest, INVAL, NOENT, OK, RAM, RAM_BYTES, RANGE};

#[derive(Clone, Copy, Debug)]
enum Op {
    Attach(u32, u32, u32),
    Detach(u32, u32),
    Map(u32, u64, u64, u64, u32),
    Unmap(u32, u64, u64),
}

/// Domains as the specification has them: by number, with their mappings.
#[derive(Default)]
struct Reference {
    endpoints: BTreeMap<u32, u32>,
    domains: BTreeMap<u32, (bool, Vec<(u64, u64)>)>,
}

impl Reference {
    fn leave(&mut self, endpoint: u32) {
        if let Some(domain) = self.endpoints.remove(&endpoint)
            && !self.endpoints.values().any(|other| *other == domain)
        {
            self.domains.remove(&domain);
        }
    }

    fn apply(&mut self, op: Op) -> u8 {
        match op {
            Op::Attach(_, endpoint, _) | Op::Detach(_, endpoint) if !ENDPOINTS.contains(&endpoint) => NOENT,
            Op::Attach(domain, endpoint, flags) => {
                if self.domains.get(&domain).is_some_and(|(is_bypass, _)| *is_bypass != (flags == 1)) {
                    return INVAL;
                }
                if self.endpoints.get(&endpoint) != Some(&domain) {
                    self.leave(endpoint);
                    self.domains.entry(domain).or_insert((flags == 1, Vec::new()));
                    self.endpoints.insert(endpoint, domain);
                }
                OK
            }
            Op::Detach(domain, endpoint) if self.endpoints.get(&endpoint) == Some(&domain) => {
                self.leave(endpoint);
                OK
            }
            Op::Detach(..) => INVAL,
            Op::Map(domain, first, last, ipa, _) => match self.domains.get_mut(&domain) {
                None => NOENT,
                Some((true, _)) => INVAL,
                Some((false, mappings)) => {
                    // Page by page, as steps find it: four at a time.
                    for at in (first..=last).step_by(0x4000) {
                        let end = (at + 0x3fff).min(last);
                        if mappings.iter().any(|other| other.0 <= end && first <= other.1) {
                            return INVAL;
                        }
                        if ipa < RAM || ipa + (end - first) >= RAM + RAM_BYTES {
                            return FAULT;
                        }
                    }
                    mappings.push((first, last));
                    OK
                }
            },
            Op::Unmap(domain, first, last) => match self.domains.get_mut(&domain) {
                None => NOENT,
                Some((true, _)) => INVAL,
                Some((false, mappings)) => {
                    let is_touched = |one: &(u64, u64)| one.0 <= last && first <= one.1;
                    if mappings.iter().any(|one| is_touched(one) && !(first <= one.0 && one.1 <= last)) {
                        return RANGE;
                    }
                    mappings.retain(|one| !is_touched(one));
                    OK
                }
            },
        }
    }
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let domain = || 1..4u32;
    let endpoint = || (0..4usize).prop_map(|at| ENDPOINTS.get(at).copied().unwrap_or(99));
    let span = || (0..40u64, 0..12u64).prop_map(|(page, more)| (page * PAGE_SIZE, (page + more + 1) * PAGE_SIZE - 1));
    let ipa = (0..70u64).prop_map(|page| RAM + page * PAGE_SIZE);
    proptest::collection::vec(
        prop_oneof![
            2 => (domain(), endpoint(), (0..8u32).prop_map(|dice| u32::from(dice == 0)))
                .prop_map(|(domain, endpoint, flags)| Op::Attach(domain, endpoint, flags)),
            1 => (domain(), endpoint()).prop_map(|(domain, endpoint)| Op::Detach(domain, endpoint)),
            6 => (domain(), span(), ipa, any::<bool>())
                .prop_map(|(domain, (first, last), ipa, flag)| Op::Map(domain, first, last, ipa, flag.into())),
            4 => (domain(), span()).prop_map(|(domain, (first, last))| Op::Unmap(domain, first, last)),
        ],
        0..80,
    )
}

proptest! {
    /// Would miss: any sequence of requests after which an endpoint reaches another domain, or a domain holds other
    /// mappings, than the specification says.
    #[test]
    fn requests_do_what_the_specification_says(ops in ops()) {
        let (mut guest, mut reference) = (Guest::new(), Reference::default());
        for op in ops {
            let expected = reference.apply(op);
            let status = match op {
                Op::Attach(domain, endpoint, flags) => guest.attach(domain, endpoint, flags),
                Op::Detach(domain, endpoint) => guest.detach(domain, endpoint),
                Op::Map(domain, first, last, ipa, flags) => guest.map(domain, first, last, ipa, flags),
                Op::Unmap(domain, first, last) => guest.unmap(domain, first, last),
            };
            assert_eq!(status, expected, "{op:x?}");
            for endpoint in ENDPOINTS {
                let reach = guest.domains.reach[&endpoint];
                match reference.endpoints.get(&endpoint).map(|domain| &reference.domains[domain]) {
                    None => assert_eq!(reach, Reach::Nothing),
                    Some((true, _)) => assert_eq!(reach, Reach::Ram),
                    Some((false, mappings)) => {
                        let Reach::Domain(place) = reach else { panic!("{reach:?}") };
                        let made = guest.domains.domains[place].as_ref().expect("a domain");
                        let mut expected = mappings.clone();
                        expected.sort_unstable();
                        assert_eq!(made.iter().map(|(first, made)| (*first, made.0)).collect::<Vec<_>>(), expected);
                    }
                }
            }
            assert_eq!(
                guest.domains.domains.iter().flatten().count(),
                reference.domains.values().filter(|(is_bypass, _)| !is_bypass).count()
            );
        }
    }
}
