//! Random lives of two VMs with a stage 1 each: one guest that flushes what it changes, and one that does as it likes.

use std::vec::Vec;

use bulkhead_core::{
    addr::{Iova, Ipa},
    ids::StreamId,
    stage1::{ContextTable, Stage1Flush, Stage1Pages, StreamConfig},
};
use proptest::{
    prelude::{Just, ProptestConfig, Strategy, any, prop_assert, prop_oneof, proptest},
    test_runner::TestCaseError,
};

use super::{NestedVm, VA, every_config, flush_page, take_over};
use crate::{
    error::Error,
    model::{DmaAccess, Model, ModelConfig, Outcome},
    smmu::{Smmu, StreamState},
};

/// Two streams a VM.
const STREAMS: [[StreamId; 2]; 2] = [[StreamId(8), StreamId(0x108)], [StreamId(9), StreamId(0x1ff)]];
/// One that stage 2 has as well, its neighbour, one of another level-2 table.
const VAS: [Iova; 3] = [VA, Iova::new(0x4000_8000), Iova::new(0x7f_0000_0000)];

#[derive(Clone, Copy, Debug)]
enum Change {
    Invalid,
    Abort,
    Bypass,
    Stage1(usize),
    Wild(u64),
}

#[derive(Clone, Copy, Debug)]
enum Flush {
    Page,
    AnyAsid,
    Pages,
    Asid,
    All,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Configure {
        stream: usize,
        change: Change,
    },
    Map {
        table: usize,
        va: usize,
        data: Option<usize>,
    },
    Flush {
        table: usize,
        va: usize,
        how: Flush,
    },
    /// Used, changed, flushed, used again, in the table of the stream's context.
    Remap {
        stream: usize,
        va: usize,
        data: usize,
        how: Flush,
    },
    Context {
        context: usize,
        table: usize,
    },
    Dma {
        stream: usize,
        va: usize,
    },
    Silence {
        stream: usize,
        is_undone: bool,
    },
    Reattach {
        stream: usize,
    },
    Refuse {
        opcode: u8,
    },
    /// A word of the first pages, contexts and tables among them.
    Garbage {
        at: u64,
        value: u64,
    },
}

fn steps(is_hostile: bool) -> impl Strategy<Value = Vec<(usize, Step)>> {
    let stream = 0usize..2;
    let change = prop_oneof![
        1 => Just(Change::Invalid),
        1 => Just(Change::Abort),
        1 => Just(Change::Bypass),
        4 => (0usize..2).prop_map(Change::Stage1),
        u32::from(is_hostile) => (0u64..0x7f_ffff_ffff).prop_map(Change::Wild),
    ];
    let how = || {
        prop_oneof![Just(Flush::Page), Just(Flush::AnyAsid), Just(Flush::Pages), Just(Flush::Asid), Just(Flush::All)]
    };
    // Descriptors of tables and pages, at addresses that lead somewhere: of either VM's, as IPA or as physical address.
    let descriptor = (0u64..0x200, any::<u16>()).prop_map(|(page, bits)| {
        (0x4000_0000 + page * 4096) | u64::from(bits) & 0xfff | if bits & 1 << 12 == 0 { 0x743 } else { 3 }
    });
    let value = prop_oneof![6 => descriptor, 1 => any::<u64>()];
    let step = prop_oneof![
        3 => (stream.clone(), change).prop_map(|(stream, change)| Step::Configure { stream, change }),
        4 => (0usize..2, 0usize..3, proptest::option::of(0usize..4))
            .prop_map(|(table, va, data)| Step::Map { table, va, data }),
        3 => (0usize..2, 0usize..3, how()).prop_map(|(table, va, how)| Step::Flush { table, va, how }),
        4 => (stream.clone(), 0usize..3, 0usize..4, how())
            .prop_map(|(stream, va, data, how)| Step::Remap { stream, va, data, how }),
        1 => (0usize..2, 0usize..2).prop_map(|(context, table)| Step::Context { context, table }),
        5 => (stream.clone(), 0usize..3).prop_map(|(stream, va)| Step::Dma { stream, va }),
        1 => (stream.clone(), any::<bool>()).prop_map(|(stream, is_undone)| Step::Silence { stream, is_undone }),
        1 => stream.prop_map(|stream| Step::Reattach { stream }),
        1 => proptest::sample::select(&[0x03u8, 0x06, 0x10, 0x11, 0x12, 0x13, 0x28][..])
            .prop_map(|opcode| Step::Refuse { opcode }),
        // Words of the page of contexts, of the tables, and of those that they lead to.
        12 * u32::from(is_hostile) => (0u64..8 * 512, value).prop_map(|(at, value)| Step::Garbage { at, value }),
    ];
    proptest::collection::vec((0usize..2, step), 1..60)
}

/// A VM as its guest knows it.
struct Known {
    vm: NestedVm,
    /// Where an address of a table may lead, until it is flushed; the last is where it does.
    leads: [[Vec<Option<usize>>; 3]; 2],
    /// The table of each context.
    tables: [usize; 2],
    configs: [StreamConfig; 2],
}

impl Known {
    fn settle(&mut self) {
        for leads in self.leads.iter_mut().flatten() {
            leads.drain(..leads.len() - 1);
        }
    }

    fn flush(&mut self, table: usize, va: usize, how: Flush) -> Stage1Flush {
        // Each table has its ASID, whatever context has it.
        let asid = if table == 0 { 1 } else { 2 };
        let is_met = |of: usize, at: usize| match how {
            Flush::Page => of == table && at == va,
            Flush::AnyAsid => at == va,
            // Two pages: the second one's neighbour.
            Flush::Pages => of == table && (at == va || va == 0 && at == 1),
            Flush::Asid => of == table,
            Flush::All => true,
        };
        for (of, leads) in self.leads.iter_mut().enumerate() {
            for (_, leads) in leads.iter_mut().enumerate().filter(|(at, _)| is_met(of, *at)) {
                leads.drain(..leads.len() - 1);
            }
        }
        let first = VAS[va].as_u64();
        match how {
            Flush::Page => flush_page(Some(asid), VAS[va]),
            Flush::AnyAsid => flush_page(None, VAS[va]),
            Flush::Pages => Stage1Flush::Pages(Stage1Pages { asid: Some(asid), first, pages: 2, is_leaf: false }),
            Flush::Asid => Stage1Flush::Asid(asid),
            Flush::All => Stage1Flush::All,
        }
    }

    /// Whether `outcome` is one that the guest has to reckon with.
    fn is_expected(&self, stream: usize, va: usize, outcome: Outcome) -> bool {
        match self.configs[stream] {
            StreamConfig::Invalid | StreamConfig::Abort => outcome.is_contained(),
            StreamConfig::Bypass => {
                let ipa = Ipa::new(VAS[va].as_u64());
                let is_inside = ipa.as_u64() - super::IPA.as_u64() < self.vm.guest.memory().1;
                if is_inside {
                    outcome == Outcome::Translated(self.vm.guest.frame(ipa))
                } else {
                    outcome.is_contained()
                }
            }
            StreamConfig::Stage1(table) => {
                let context = usize::from(table.at != self.vm.contexts[0]);
                self.leads[self.tables[context]][va].iter().any(|lead| match lead {
                    Some(data) => outcome == self.vm.reaches(*data),
                    None => outcome.is_contained(),
                })
            }
        }
    }
}

struct World {
    model: Model,
    smmu: Smmu<Model>,
    vms: [Known; 2],
    is_hostile: bool,
}

impl World {
    fn new(config: ModelConfig, is_hostile: bool) -> Self {
        let model = Model::new(config);
        let mut smmu = take_over(&model);
        let vms = [1, 2].map(|vmid| {
            let mut vm = NestedVm::new(&model, vmid);
            // Every table on the way is made now.
            for (table, va) in [(0, 0), (0, 2), (1, 0), (1, 2)] {
                vm.page(VAS[va], table, None);
            }
            Known {
                vm,
                leads: core::array::from_fn(|_| core::array::from_fn(|_| vec![None])),
                tables: [0, 1],
                configs: [StreamConfig::Bypass; 2],
            }
        });
        for (known, streams) in vms.iter().zip(STREAMS) {
            for stream in streams {
                model.attack_with(stream, VA);
                known.vm.attach(&model, &mut smmu, stream);
            }
        }
        Self { model, smmu, vms, is_hostile }
    }

    /// All of a VM's streams, as when it starts.
    fn restart(&mut self, vm: usize) -> Result<(), TestCaseError> {
        for stream in STREAMS[vm] {
            // A refusal is used up by the try that it fails.
            for _ in 0..8 {
                match self.smmu.detach(stream) {
                    Ok(_) | Err(Error::NotAttached { .. }) => break,
                    Err(_) => {}
                }
            }
        }
        for (place, stream) in STREAMS[vm].into_iter().enumerate() {
            let done = (0..8).any(|_| {
                let attached = self.smmu.attach(stream, &self.vms[vm].vm.s2);
                if matches!(attached, Err(Error::StreamQuarantined { .. })) {
                    let _ = self.smmu.detach(stream);
                }
                attached.is_ok()
            });
            prop_assert!(done, "{stream} does not come back");
            self.vms[vm].configs[place] = StreamConfig::Bypass;
        }
        self.vms[vm].settle();
        Ok(())
    }

    fn submit(&mut self, vm: usize, flush: Stage1Flush) -> Result<(), TestCaseError> {
        let vmid = self.vms[vm].vm.s2.vmid;
        let sent = self.smmu.submit_stage1(vmid, [flush].into_iter());
        if sent.and_then(|ticket| self.smmu.wait(ticket)).is_err() { self.restart(vm) } else { Ok(()) }
    }

    fn step(&mut self, vm: usize, step: Step) -> Result<(), TestCaseError> {
        let known = &mut self.vms[vm];
        match step {
            Step::Configure { stream, change } => {
                let config = match change {
                    Change::Invalid => StreamConfig::Invalid,
                    Change::Abort => StreamConfig::Abort,
                    Change::Bypass => StreamConfig::Bypass,
                    Change::Stage1(context) => known.vm.config(context),
                    Change::Wild(at) => {
                        let at = Ipa::new(at & !63);
                        StreamConfig::Stage1(ContextTable { at, inner: 1, outer: 1, shareability: 3 })
                    }
                };
                known.configs[stream] = config;
                if self.smmu.configure(STREAMS[vm][stream], &config).is_err() {
                    self.restart(vm)?;
                }
            }
            Step::Map { table, va, data } => {
                known.vm.page(VAS[va], table, data);
                known.leads[table][va].push(data);
            }
            Step::Flush { table, va, how } => {
                let flush = known.flush(table, va, how);
                self.submit(vm, flush)?;
            }
            Step::Remap { stream, va, data, how } => {
                let StreamConfig::Stage1(context) = known.configs[stream] else { return Ok(()) };
                let table = known.tables[usize::from(context.at != known.vm.contexts[0])];
                for step in [Step::Map { table, va, data: Some(data) }, Step::Flush { table, va, how }] {
                    self.step(vm, Step::Dma { stream, va })?;
                    self.step(vm, step)?;
                }
                self.step(vm, Step::Dma { stream, va })?;
            }
            Step::Context { context, table } => {
                known.tables[context] = table;
                let asid = if table == 0 { 1 } else { 2 };
                known.vm.guest.write_context(known.vm.contexts[context], asid, known.vm.tables[table]);
                let flush = known.flush(0, 0, Flush::All);
                for stream in STREAMS[vm] {
                    self.smmu.forget_context(stream).map_err(|error| TestCaseError::fail(error.to_string()))?;
                }
                self.submit(vm, flush)?;
            }
            Step::Dma { stream, va } => {
                let id = STREAMS[vm][stream];
                let outcome = self.model.dma(id, VAS[va], DmaAccess::Write);
                let state = self.smmu.find_stream(id).map(|info| info.state);
                match state {
                    Some(StreamState::Aborted) => prop_assert!(outcome.is_contained()),
                    Some(StreamState::Attached | StreamState::Silenced) if !self.is_hostile => {
                        let is_expected = self.vms[vm].is_expected(stream, va, outcome);
                        prop_assert!(is_expected, "{id} at {}: {outcome:?}", VAS[va]);
                    }
                    _ => {}
                }
                let _ = self.smmu.poll_events(1000, |_, _| {});
            }
            Step::Silence { stream, is_undone } => {
                let id = STREAMS[vm][stream];
                let done = if is_undone { self.smmu.unsilence(id) } else { self.smmu.silence(id) };
                if done.is_err() {
                    self.restart(vm)?;
                }
            }
            Step::Reattach { stream } => {
                let id = STREAMS[vm][stream];
                let again = self.smmu.detach(id).is_ok() && self.smmu.attach(id, &self.vms[vm].vm.s2).is_ok();
                if !again {
                    return self.restart(vm);
                }
                // A detach flushes the whole VMID.
                let known = &mut self.vms[vm];
                known.configs[stream] = StreamConfig::Bypass;
            }
            Step::Refuse { opcode } => self.model.refuse(opcode, 1, 1),
            Step::Garbage { at, value } => known.vm.guest.write(Ipa::new(super::IPA.as_u64() + at * 8), value),
        }
        Ok(())
    }

    fn live(config: ModelConfig, is_hostile: bool, steps: &[(usize, Step)]) -> Result<(), TestCaseError> {
        let mut world = Self::new(config, is_hostile);
        for (vm, step) in steps {
            world.step(*vm, *step)?;
        }
        let violations = world.model.violations();
        prop_assert!(violations.is_empty(), "{violations:#x?}");
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Would miss: one VM's flush, context or configuration that changes what another's device reaches; a page that a
    /// guest's flush leaves behind.
    #[test]
    fn a_device_reaches_what_its_guest_flushed_last(steps in steps(false), kind in 0..every_config().len()) {
        World::live(every_config()[kind], false, &steps)?;
    }

    /// Would miss: anything that a guest writes into its contexts and tables by which it gets out of its memory.
    #[test]
    fn whatever_a_guest_writes_stays_its_own_affair(steps in steps(true), kind in 0..every_config().len()) {
        World::live(every_config()[kind], true, &steps)?;
    }
}
