//! Endpoints and domains: ATTACH, DETACH, and what an endpoint without a domain reaches.

use super::{
    VirtioIommu,
    config::DOMAIN_LAST,
    domains::{Domains, Failed, Reach},
    request::{ATTACH_BYPASS, Status},
    transport::feature,
};

/// An endpoint of the VM.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint {
    id: u32,
    /// Place of its domain.
    domain: Option<usize>,
}

impl Endpoint {
    /// One without a domain.
    pub const fn new(id: u32) -> Self {
        Self { id, domain: None }
    }

    /// What the guest calls it.
    pub const fn id(&self) -> u32 {
        self.id
    }
}

/// A domain that an endpoint is attached to.
#[derive(Clone, Copy, Debug)]
pub struct Domain {
    id: u32,
    is_bypass: bool,
}

impl VirtioIommu {
    /// Place of the domain of this number, and whether it is a bypass domain.
    pub(super) fn find_domain(&self, id: u32) -> Option<(usize, bool)> {
        let places = self.domains.iter().enumerate();
        places
            .filter_map(|(place, domain)| domain.map(|domain| (place, domain)))
            .find_map(|(place, domain)| (domain.id == id).then_some((place, domain.is_bypass)))
    }

    /// Whether an endpoint has this number.
    pub(super) fn has_endpoint(&self, id: u32) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.id == id)
    }

    /// Whether an endpoint is attached to a domain.
    pub(super) fn is_attached(&self, id: u32) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.id == id && endpoint.domain.is_some())
    }

    /// What an endpoint reaches that is attached to no domain.
    const fn idle_reach(&self) -> Reach {
        if self.has_bypass { Reach::Ram } else { Reach::Nothing }
    }

    /// ATTACH. An endpoint of another domain is detached from that first.
    pub(super) fn attach(
        &mut self,
        domains: &mut impl Domains,
        id: u32,
        endpoint: u32,
        flags: u32,
        reserved: u32,
    ) -> Result<Status, Failed> {
        let known = if self.transport.has(feature::BYPASS_CONFIG) { ATTACH_BYPASS } else { 0 };
        if reserved != 0 || flags & !known != 0 {
            return Ok(Status::Inval);
        }
        let is_bypass = flags & ATTACH_BYPASS != 0;
        let Some(at) = self.endpoints.iter().position(|other| other.id == endpoint) else { return Ok(Status::Noent) };
        if id > DOMAIN_LAST {
            return Ok(Status::Range);
        }
        let existing = self.find_domain(id);
        if let Some((place, other)) = existing {
            if other != is_bypass {
                return Ok(Status::Inval);
            }
            if self.endpoints.get(at).is_some_and(|endpoint| endpoint.domain == Some(place)) {
                return Ok(Status::Ok);
            }
        }
        self.leave(domains, at)?;
        let place = match existing {
            Some((place, _)) => place,
            None => match self.make_domain(domains, Domain { id, is_bypass }) {
                Some(place) => place,
                None => return Ok(Status::Nomem),
            },
        };
        if let Some(endpoint) = self.endpoints.get_mut(at) {
            endpoint.domain = Some(place);
            domains.attach(endpoint.id, if is_bypass { Reach::Ram } else { Reach::Domain(place) })?;
        }
        Ok(Status::Ok)
    }

    fn make_domain(&mut self, domains: &mut impl Domains, domain: Domain) -> Option<usize> {
        let place = self.domains.iter().position(Option::is_none)?;
        if !domain.is_bypass {
            domains.create(place).ok()?;
        }
        *self.domains.get_mut(place)? = Some(domain);
        Some(place)
    }

    /// DETACH.
    pub(super) fn detach(&mut self, domains: &mut impl Domains, id: u32, endpoint: u32) -> Result<Status, Failed> {
        let Some(at) = self.endpoints.iter().position(|other| other.id == endpoint) else { return Ok(Status::Noent) };
        let own = self.endpoints.get(at).and_then(|endpoint| endpoint.domain);
        match self.find_domain(id) {
            Some((place, _)) if own == Some(place) => self.leave(domains, at).map(|()| Status::Ok),
            _ => Ok(Status::Inval),
        }
    }

    /// Takes an endpoint out of its domain, if it has one; the last one takes the domain with it.
    fn leave(&mut self, domains: &mut impl Domains, at: usize) -> Result<(), Failed> {
        let idle = self.idle_reach();
        let Some(endpoint) = self.endpoints.get_mut(at) else { return Ok(()) };
        let Some(place) = endpoint.domain.take() else { return Ok(()) };
        domains.attach(endpoint.id, idle)?;
        if self.endpoints.iter().any(|other| other.domain == Some(place)) {
            return Ok(());
        }
        match self.domains.get_mut(place).and_then(Option::take) {
            Some(Domain { is_bypass: false, .. }) => domains.destroy(place),
            _ => Ok(()),
        }
    }

    /// Takes every endpoint out of its domain.
    pub(super) fn leave_all(&mut self, domains: &mut impl Domains) -> Result<(), Failed> {
        (0..self.endpoints.len()).try_for_each(|at| self.leave(domains, at))
    }

    /// `bypass` is written.
    pub(super) fn set_bypass(&mut self, domains: &mut impl Domains, has_bypass: bool) -> Result<(), Failed> {
        if has_bypass == self.has_bypass {
            return Ok(());
        }
        self.has_bypass = has_bypass;
        let idle = self.idle_reach();
        let mut unattached = self.endpoints.iter().filter(|endpoint| endpoint.domain.is_none());
        unattached.try_for_each(|endpoint| domains.attach(endpoint.id, idle))
    }
}
