//! Sizes of the image's parts, and the memory that EL2 takes at its peak.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use object::{Object, ObjectSection, SectionKind};

use super::{
    Limit, Report,
    machine::{Bench, Guest, deadline},
};
use crate::{boot_only, console::Event, manifest::schema::Stage2Leaves};

const KIB: f64 = 1024.0;
/// The key that moves the console's input, and how often it is pressed until the shell answers.
const SWITCH_KEY: &str = "\x14";
const PRESSES: usize = 4;

/// Sizes from the ELF file, memory from the hypervisor's own shell while a guest runs.
///
/// # Errors
/// When the ELF file cannot be read or the shell does not answer.
pub fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let elf = std::fs::read(&bench.hypervisor.elf)?;
    let file = object::File::parse(elf.as_slice()).context("the hypervisor's ELF file")?;
    let (mut boot_text, mut viommu_text, mut text, mut rodata, mut data, mut bss) = (0, 0, 0, 0, 0, 0);
    for section in file.sections() {
        let sum = match (section.kind(), section.name().unwrap_or_default()) {
            (SectionKind::Text, boot_only::TEXT) => &mut boot_text,
            (SectionKind::Text, boot_only::VIOMMU_TEXT) => &mut viommu_text,
            (SectionKind::Text, _) => &mut text,
            (SectionKind::UninitializedData, _) => &mut bss,
            (SectionKind::Data, ".data") => &mut data,
            (
                SectionKind::ReadOnlyData
                | SectionKind::ReadOnlyString
                | SectionKind::Data
                | SectionKind::ReadOnlyDataWithRel,
                _,
            ) => &mut rodata,
            _ => continue,
        };
        *sum += section.size();
    }
    let kib = |bytes: u64| bytes as f64 / KIB;
    report.figure("image: text that stays after boot", kib(text), "KiB", Limit::AtMost(160.0));
    report.figure("image: text that is given back after boot", kib(boot_text), "KiB", Limit::None);
    report.figure("image: text that stays where a vm is behind a virtio iommu", kib(viommu_text), "KiB", Limit::None);
    report.figure("image: text, all of it", kib(text + boot_text + viommu_text), "KiB", Limit::None);
    report.figure("image: read-only data, symbol names among it", kib(rodata), "KiB", Limit::None);
    report.figure("image: data", kib(data), "KiB", Limit::None);
    report.figure("image: bss and stacks", kib(bss), "KiB", Limit::None);
    for line in ask_memory(bench)? {
        println!("     {line}");
    }
    Ok(())
}

/// Lets the hypervisor's shell say what it has taken.
fn ask_memory(bench: &Bench<'_>) -> Result<Vec<String>> {
    let cmdline = "bulkhead.run=shell".to_owned();
    let guest = Guest { cpus: 2, nics: 1, cmdline, is_exact: false, stage2: Stage2Leaves::Blocks, nested: None };
    let mut machine = bench.start_under_bulkhead("memory", &guest)?;
    let ready = machine.wait_for(deadline(), |line| line.contains("bulkhead-guest: ready"));
    ready.with_context(|| format!("the guest did not come up:\n{}", machine.tail(20)))?;
    for _ in 0..PRESSES {
        machine.send(SWITCH_KEY)?;
        machine.send("mem\r")?;
        let mut answer = Vec::new();
        let until = Instant::now() + Duration::from_secs(5);
        while let Event::Line(line) = machine.next(until) {
            if let Some(text) = line.strip_prefix("[bulkhead] ").filter(|text| is_about_memory(text)) {
                answer.push(text.to_owned());
            }
        }
        if !answer.is_empty() {
            return Ok(answer);
        }
    }
    anyhow::bail!("the hypervisor's shell did not answer `mem`:\n{}", machine.tail(20))
}

fn is_about_memory(text: &str) -> bool {
    ["pool", "peak", "tables"].iter().any(|word| text.contains(word))
}
