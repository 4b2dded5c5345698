//! What each request does, in bounded steps.

use bulkhead_core::addr::PAGE_SIZE;

use super::{
    VirtioIommu,
    config::DOMAIN_LAST,
    domains::{Domains, Failed, MapRefused, Mapping, Range},
    request::{MAP_READ, MAP_WRITE, Request, Status},
    transport::feature,
};

/// A request that takes more than one step.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// Map on.
    Map {
        /// Place of the domain.
        place: usize,
        /// What is mapped.
        mapping: Mapping,
        /// Bytes that are.
        done: u64,
    },
    /// Unmap on, and answer with a status: OK, or why a mapping that was begun is taken back.
    Unmap {
        /// Place of the domain.
        place: usize,
        /// What is unmapped.
        range: Range,
        /// The address to go on from.
        from: u64,
        /// The answer.
        status: Status,
    },
}

/// What a step left.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Nothing: the answer.
    Done(Status),
    /// More of this.
    More(Work),
}

impl Work {
    /// One step.
    pub fn step(self, domains: &mut impl Domains) -> Result<Step, Failed> {
        match self {
            Self::Map { place, mapping, done } => {
                let Range { first, last } = mapping.range;
                match domains.map(place, &mapping, done) {
                    Ok(done) if done > last - first => Ok(Step::Done(Status::Ok)),
                    Ok(done) => Ok(Step::More(Self::Map { place, mapping, done })),
                    Err(refused) => {
                        let status = status_of(refused)?;
                        let Some(more) = done.checked_sub(1) else { return Ok(Step::Done(status)) };
                        let range = Range { first, last: first.saturating_add(more) };
                        Ok(Step::More(Self::Unmap { place, range, from: first, status }))
                    }
                }
            }
            Self::Unmap { place, range, from, status } => match domains.unmap(place, range, from) {
                None => Ok(Step::Done(status)),
                Some(from) => Ok(Step::More(Self::Unmap { place, range, from, status })),
            },
        }
    }
}

fn status_of(refused: MapRefused) -> Result<Status, Failed> {
    match refused {
        MapRefused::Mapped => Ok(Status::Inval),
        MapRefused::NotRam => Ok(Status::Fault),
        MapRefused::NoTables(_) => Ok(Status::Nomem),
        MapRefused::Failed(failed) => Err(failed),
    }
}

impl VirtioIommu {
    /// Begins a request that is no PROBE. `None`: it is not one that was negotiated.
    pub(super) fn begin(&mut self, request: Request, domains: &mut impl Domains) -> Result<Option<Step>, Failed> {
        let has_maps = self.transport.has(feature::MAP_UNMAP);
        let done = match request {
            Request::Attach { domain, endpoint, flags, reserved } => {
                self.attach(domains, domain, endpoint, flags, reserved)?
            }
            Request::Detach { domain, endpoint } => self.detach(domains, domain, endpoint)?,
            Request::Map { domain, first, last, ipa, flags } if has_maps => {
                match self.check_map(domain, Range { first, last }, ipa, flags) {
                    Ok(work) => return Ok(Some(Step::More(work))),
                    Err(status) => status,
                }
            }
            Request::Unmap { domain, first, last } if has_maps => {
                match self.check_unmap(domains, domain, Range { first, last }) {
                    Ok(work) => return Ok(Some(Step::More(work))),
                    Err(status) => status,
                }
            }
            Request::Map { .. } | Request::Unmap { .. } | Request::Probe { .. } => return Ok(None),
        };
        Ok(Some(Step::Done(done)))
    }

    /// Place of a domain that has mappings.
    fn mapped_domain(&self, id: u32) -> Result<usize, Status> {
        if id > DOMAIN_LAST {
            return Err(Status::Range);
        }
        match self.find_domain(id) {
            None => Err(Status::Noent),
            Some((_, true)) => Err(Status::Inval),
            Some((place, false)) => Ok(place),
        }
    }

    fn check_map(&self, domain: u32, range: Range, ipa: u64, flags: u32) -> Result<Work, Status> {
        let Range { first, last } = range;
        if flags & !(MAP_READ | MAP_WRITE) != 0 || last < first {
            return Err(Status::Inval);
        }
        let place = self.mapped_domain(domain)?;
        let is_aligned = (first | ipa | last.wrapping_add(1)).is_multiple_of(PAGE_SIZE);
        if !is_aligned || last > self.ability.last {
            return Err(Status::Range);
        }
        let msi = self.ability.msi;
        if first <= msi.last && msi.first <= last {
            return Err(Status::Inval);
        }
        let (is_readable, is_writable) = (flags & MAP_READ != 0, flags & MAP_WRITE != 0);
        Ok(Work::Map { place, mapping: Mapping { range, ipa, is_readable, is_writable }, done: 0 })
    }

    fn check_unmap(&self, domains: &mut impl Domains, domain: u32, range: Range) -> Result<Work, Status> {
        if range.last < range.first {
            return Err(Status::Inval);
        }
        let place = self.mapped_domain(domain)?;
        domains.check_unmap(place, range).map_err(|_| Status::Range)?;
        Ok(Work::Unmap { place, range, from: range.first, status: Status::Ok })
    }
}
