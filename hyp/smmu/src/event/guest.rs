//! An event as the guest whose stream it is would find it in the queue of an SMMU of its own.

use bulkhead_core::ids::StreamId;

use super::{Class, EVENT_WORDS, EVENT0, EVENT1, Event, Reason};

impl Event {
    /// The record for the guest that knows the stream as `stream`; `None` where its own SMMU would record nothing.
    ///
    /// The guest's SMMU has stage 1 alone; that what it takes for physical memory is translated again, it does not see
    /// (7.3.10 and 7.3.12 say how). Of the addresses it gets the one that its device put out, and IPAs: of physical ones
    /// the record has zero. S2, Stall, STAG, NSIPA and the reasons of the implementation are zero.
    ///
    /// | the SMMU's event | the guest's |
    /// |---|---|
    /// | C_BAD_STE, C_BAD_CD, C_BAD_SUBSTREAMID, F_STREAM_DISABLED | the same |
    /// | F_CD_FETCH | the same, FetchAddr 0 |
    /// | F_WALK_EABT at stage 1 | the same, FetchAddr 0 |
    /// | F_TRANSLATION, F_ADDR_SIZE, F_ACCESS, F_PERMISSION at stage 1 | the same |
    /// | one of these at stage 2, of a CD's fetch | F_CD_FETCH, FetchAddr the page of the IPA |
    /// | the same, of a stage-1 table's fetch | F_WALK_EABT, FetchAddr the page of the IPA |
    /// | F_WALK_EABT at stage 2, of such a fetch | the same two, FetchAddr 0 |
    /// | any at stage 2, of what the device put out | none: an abort that memory answers with is the device's alone |
    /// | all others | none: of the table or of what the guest's SMMU does not have |
    pub fn for_guest(&self, stream: StreamId) -> Option<[u64; EVENT_WORDS]> {
        let is_stage2 = self.stage == Some(2);
        let reason = match (self.reason, self.class) {
            (Reason::BadSte | Reason::BadCd | Reason::BadSubstreamId | Reason::StreamDisabled | Reason::CdFetch, _) => {
                self.reason
            }
            (reason, _) if !reason.is_translation_fault() => return None,
            (reason, _) if !is_stage2 => reason,
            (_, Some(Class::ContextDescriptor)) => Reason::CdFetch,
            (_, Some(Class::TableWalk)) => Reason::WalkAbort,
            _ => return None,
        };
        let kept = EVENT0::SSV.mask << EVENT0::SSV.shift | EVENT0::SUBSTREAM.mask << EVENT0::SUBSTREAM.shift;
        let word0 = u64::from(reason.number()) | self.raw[0] & kept | u64::from(stream.0) << 32;
        let access = EVENT1::PNU.mask << EVENT1::PNU.shift
            | EVENT1::IND.mask << EVENT1::IND.shift
            | EVENT1::RNW.mask << EVENT1::RNW.shift
            | EVENT1::CLASS.mask << EVENT1::CLASS.shift;
        let (word1, word2) = if reason.is_translation_fault() { (self.raw[1] & access, self.raw[2]) } else { (0, 0) };
        Some([word0, word1, word2, self.ipa.map_or(0, |ipa| ipa.as_u64())])
    }
}
