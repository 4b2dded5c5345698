//! A VM's DMA maps: one mode for all its devices, names that exist, numbers within their bounds.

use bulkhead_core::bundle::{
    DEFERRED_MS_MAX, DEFERRED_PAGES_MAX, DmamapFlush, DmamapRecord, DmamapStrategy, MAPS_MAX, TABLES_MAX,
};

use super::super::{
    problem::Problem,
    schema::{DmamapSection, VmSection},
};

/// Defaults of the numbers.
const MAPS: u32 = 1024;
const TABLES: u32 = 64;
const DEFERRED_PAGES: u32 = 256;
const DEFERRED_MS: u32 = 10;

/// The record of one VM: all zero without DMA maps.
pub fn record(section: &VmSection, problems: &mut Vec<Problem>) -> Option<DmamapRecord> {
    let vm = || section.name.clone();
    let uses_maps = section.devices.iter().any(|device| device.dma == "dmamap");
    match (&section.dmamap, uses_maps) {
        (None, false) => Some(DmamapRecord::default()),
        (Some(_), false) => {
            problems.push(Problem::DmamapUnused { vm: vm() });
            None
        }
        (settings, true) => compile(&section.name, settings.as_ref().unwrap_or(&DmamapSection::default()), problems),
    }
}

fn compile(vm: &str, settings: &DmamapSection, problems: &mut Vec<Problem>) -> Option<DmamapRecord> {
    let strategies = DmamapStrategy::ALL.map(DmamapStrategy::name);
    let strategy = name(vm, "dmamap.strategy", settings.strategy.as_deref(), &strategies, problems);
    let flush = name(vm, "dmamap.flush", settings.flush.as_deref(), &DmamapFlush::NAMES, problems);
    let mut number = |key, value: Option<u64>, default, max| match value {
        None => Some(default),
        Some(value) => {
            let good = u32::try_from(value).ok().filter(|value| (1..=max).contains(value));
            if good.is_none() {
                problems.push(Problem::DmamapNumber { vm: vm.to_owned(), key, value, max });
            }
            good
        }
    };
    let maps = number("maps", settings.maps, MAPS, MAPS_MAX);
    let tables = number("tables", settings.tables, TABLES, TABLES_MAX);
    let is_deferred = settings.flush.as_deref() == Some("deferred");
    let [pages, ms] = if is_deferred { [DEFERRED_PAGES, DEFERRED_MS] } else { [0, 0] };
    let deferred_pages = number("deferred_pages", settings.deferred_pages, pages, DEFERRED_PAGES_MAX);
    let deferred_ms = number("deferred_ms", settings.deferred_ms, ms, DEFERRED_MS_MAX);
    let bounds = [("deferred_pages", settings.deferred_pages), ("deferred_ms", settings.deferred_ms)];
    for (key, _) in bounds.into_iter().filter(|(_, value)| value.is_some() && !is_deferred) {
        let flush = settings.flush.clone().unwrap_or_else(|| DmamapFlush::Auto.name().to_owned());
        problems.push(Problem::DmamapNotDeferred { vm: vm.to_owned(), key, flush });
    }
    Some(DmamapRecord {
        strategy: strategy?,
        flush: flush?,
        maps: maps?,
        tables: tables?,
        deferred_pages: deferred_pages?,
        deferred_ms: deferred_ms?,
    })
}

/// The place of a name among those that there are; the first one is the default.
pub(super) fn name(
    vm: &str,
    key: &'static str,
    text: Option<&str>,
    known: &[&str],
    problems: &mut Vec<Problem>,
) -> Option<u32> {
    let Some(text) = text else { return Some(0) };
    let place = known.iter().position(|name| *name == text);
    if place.is_none() {
        let known = known.join(", ");
        problems.push(Problem::DmamapName { vm: vm.to_owned(), key, text: text.to_owned(), known });
    }
    place.and_then(|place| u32::try_from(place).ok())
}
