//! Events, their budget, and global errors.

use bulkhead_core::{addr::Iova, ids::StreamId};

use super::{HOLE, IOVA, every_config, reason, take_over, vm};
use crate::{
    error::Error,
    event::{Event, Reason},
    features::IdRegisters,
    model::{DmaAccess, Model, ModelConfig, Outcome},
    platform::Platform,
    registers::offset,
    smmu::{Smmu, StreamInfo, StreamState},
};

#[test]
fn a_stream_over_its_budget_is_silenced_and_goes_on_working() {
    let model = Model::new(ModelConfig::new(ModelConfig::QEMU));
    let mut smmu = take_over(&model);
    let vm = vm(&model, 1);
    let nic = StreamId(0x8);
    model.grant(nic, vm.frame, 4096);
    smmu.attach_again(nic, &vm.s2).expect("attach");
    for _ in 0..100 {
        let _ = model.dma(nic, HOLE, DmaAccess::Write);
    }
    let mut lines = vec![];
    let polled = smmu.poll_events(1000, |event, info| {
        lines.push((event.reason, event.iova, info.map(|info| info.vmid)));
    });
    assert_eq!((polled.seen, polled.reported), (100, 32));
    assert_eq!(polled.silenced.as_slice(), [nic]);
    assert!(lines.iter().all(|line| *line == (Reason::Translation, Some(HOLE), Some(vm.s2.vmid))));
    let info = smmu.find_stream(nic).expect("known");
    assert_eq!((info.state, info.faults, info.dropped), (StreamState::Silenced, 100, 68));
    // Silent, still contained, and its own memory still works.
    assert_eq!(model.dma(nic, HOLE, DmaAccess::Write), Outcome::Aborted);
    assert_eq!(model.dma(nic, IOVA, DmaAccess::Write), Outcome::Translated(vm.frame));
    assert_eq!(smmu.poll_events(1000, |_, _| {}).seen, 0);
    assert_eq!(smmu.unsilence(nic), Ok(StreamState::Attached));
    assert_eq!(reason(model.dma(nic, HOLE, DmaAccess::Write)), Some(Reason::Translation));
    assert_eq!(smmu.silence(nic), Ok(StreamState::Silenced));
    assert_eq!(smmu.silence(nic), Ok(StreamState::Aborted), "the second time for good");
    assert_eq!(model.dma(nic, IOVA, DmaAccess::Write), Outcome::Aborted);
    let _ = smmu.detach(nic).expect("detach");
    model.assert_clean();
}

#[test]
fn reading_events_is_bounded_and_resumes_across_the_queues_end() {
    // A queue of 32 events: 20 rounds go round it 12 times, and each stream is another than the slot's last.
    for mut config in every_config() {
        config.id.idr1 = config.id.idr1 & !(31 << 16) | 5 << 16;
        let model = Model::new(config);
        let mut smmu = take_over(&model);
        let mut streams = 0..400u32;
        for _ in 0..20 {
            let mut sent = streams.clone();
            for stream in sent.by_ref().take(20) {
                let _ = model.dma(StreamId(stream), Iova::new(0), DmaAccess::Read);
            }
            let mut check = |event: &Event, info: Option<&StreamInfo>| {
                assert!(matches!(event.reason, Reason::BadSte | Reason::BadStreamId));
                assert_eq!((Some(event.stream.0), info), (streams.next(), None));
            };
            let polled = smmu.poll_events(15, &mut check);
            assert_eq!((polled.seen, polled.has_more), (15, true));
            let polled = smmu.poll_events(15, &mut check);
            assert_eq!((polled.seen, polled.has_more, polled.has_overflowed), (5, false, false));
            model.sleep(2_000_000);
        }
        assert_eq!(smmu.counters().events, 400);
        model.assert_clean();
    }
}

#[test]
fn an_overflow_is_told_once_and_acknowledged() {
    // A queue of 256 events.
    let idr1 = ModelConfig::QEMU.idr1 & !(31 << 16) | 8 << 16;
    let model = Model::new(ModelConfig::new(IdRegisters { idr1, ..ModelConfig::QEMU }));
    let mut smmu = take_over(&model);
    for round in 0..3 {
        for _ in 0..300 {
            // Each silenced by then.
            let _ = model.dma(StreamId(1 + round), IOVA, DmaAccess::Read);
        }
        let polled = smmu.poll_events(1000, |_, _| {});
        assert_eq!((polled.seen, polled.has_overflowed), (256, true), "round {round}");
        let polled = smmu.poll_events(1000, |_, _| {});
        assert_eq!((polled.seen, polled.has_overflowed), (0, false));
    }
    assert_eq!(smmu.counters().overflows, 3);
    model.assert_clean();
}

#[test]
fn global_errors_are_told_and_acknowledged_once() {
    let model = Model::new(ModelConfig::new(ModelConfig::QEMU));
    let mut smmu = take_over(&model);
    assert_eq!(smmu.handle_gerror(), None, "firmware's errors are not ours");
    model.raise(1 << 2 | 1 << 8);
    let report = smmu.handle_gerror().expect("a report");
    assert!(report.is_dead && report.has_lost_events);
    assert_eq!(std::format!("{report}"), "EVENTQ_ABT_ERR | SFM_ERR: service failure, every transaction is aborted");
    assert_eq!(smmu.handle_gerror(), None);
    // An error of the command queue is for the wait that it stopped: acknowledged here, the command would be tried
    // again as it is.
    model.raise(1);
    assert_eq!(smmu.handle_gerror(), None);
    assert_eq!(model.clone().read32(offset::GERROR) ^ model.clone().read32(offset::GERRORN), 1);
    model.assert_clean();
}

/// Would miss: a stream of nobody's that floods the queue, of which every overflow loses others' events.
#[test]
fn a_stray_that_floods_is_silenced_if_it_has_an_entry() {
    let model = Model::new(ModelConfig::new(ModelConfig::QEMU));
    let mut smmu = take_over(&model);
    let (nic, other) = (StreamId(0x8), StreamId(0x9));
    assert_eq!(smmu.stand_by(nic), Ok(()));
    let flood = |smmu: &mut Smmu<_>, stream| {
        let seen = (0..4).map(|_| {
            for _ in 0..50 {
                let _ = model.dma(stream, HOLE, DmaAccess::Write);
            }
            smmu.poll_events(64, |_, _| {}).seen
        });
        let seen: u32 = seen.sum();
        model.sleep(2_000_000);
        seen
    };
    assert_eq!(flood(&mut smmu, nic), 50);
    assert_eq!(flood(&mut smmu, nic), 0, "and stays silent");
    assert_eq!(flood(&mut smmu, other), 50, "another has what is left of the window's budget, then none");
    let far = StreamId(0x900);
    assert_eq!(flood(&mut smmu, far), 200, "no memory is taken for one that has no entry: its device is not a VM's");
    assert_eq!(smmu.stand_by(nic), Ok(()));
    assert_eq!(flood(&mut smmu, nic), 50, "its next life begins with a record");
    model.assert_clean();
}

/// Would miss: a stream that a VM attaches anew, to be heard again.
#[test]
fn a_stream_that_is_taken_out_stays_as_silent_as_it_was() {
    let model = Model::new(ModelConfig::new(ModelConfig::QEMU));
    let mut smmu = take_over(&model);
    let vm = vm(&model, 1);
    let nic = StreamId(0x8);
    model.grant(nic, vm.frame, 4096);
    assert_eq!(smmu.stand_by(nic), Ok(()));
    smmu.attach_again(nic, &vm.s2).expect("attach");
    assert_eq!(smmu.stand_by(nic), Err(Error::StreamOwned { stream: nic, owner: vm.s2.vmid }));
    let mut seen = 0;
    let mut states = vec![];
    for _ in 0..10 {
        for _ in 0..20 {
            let _ = model.dma(nic, HOLE, DmaAccess::Write);
        }
        seen += smmu.poll_events(64, |_, _| {}).seen;
        states.push(smmu.find_stream(nic).expect("known").state);
        let _ = smmu.take_out(nic).expect("taken out");
        assert_eq!(model.dma(nic, IOVA, DmaAccess::Write), Outcome::Aborted);
        smmu.attach_again(nic, &vm.s2).expect("attach");
    }
    assert_eq!(
        (seen, states.as_slice()[..3].to_vec()),
        (40, vec![StreamState::Attached, StreamState::Silenced, StreamState::Silenced])
    );
    // Silenced, it works; aborted, it does not, wherever it is attached.
    assert_eq!(model.dma(nic, IOVA, DmaAccess::Write), Outcome::Translated(vm.frame));
    assert_eq!(smmu.silence(nic), Ok(StreamState::Aborted));
    let _ = smmu.take_out(nic).expect("taken out");
    smmu.attach_again(nic, &vm.s2).expect("attach");
    assert_eq!(smmu.find_stream(nic).map(|info| (info.state, info.faults)), Some((StreamState::Aborted, 40)));
    assert_eq!(model.dma(nic, IOVA, DmaAccess::Write), Outcome::Aborted);
    // Its VM's next life.
    let _ = smmu.detach(nic).expect("detach");
    assert_eq!(smmu.stand_by(nic), Ok(()));
    smmu.attach_again(nic, &vm.s2).expect("attach");
    assert_eq!(smmu.find_stream(nic).map(|info| (info.state, info.faults)), Some((StreamState::Attached, 0)));
    assert_eq!(model.dma(nic, IOVA, DmaAccess::Write), Outcome::Translated(vm.frame));
    model.assert_clean();
}
