//! What the payload types of one endpoint mean.

use crate::media::{Codec, MediaPlan, RECEIVE_FORMATS_MAX};

/// What a payload type means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Audio in this codec.
    Audio(Codec),
    /// RFC 4733.
    TelephoneEvent,
}

/// Meanings of payload types. A few bytes that are looked through, rather than a place for every type: they
/// lie beside what else a packet needs.
#[derive(Debug)]
pub(super) struct Formats([Option<(u8, Format)>; FORMATS_MAX]);

/// All codecs, and telephone-event.
const FORMATS_MAX: usize = RECEIVE_FORMATS_MAX + 1;

impl Formats {
    /// Nothing was negotiated.
    pub(super) const NONE: Self = Self([None; FORMATS_MAX]);

    /// The same, as a function.
    pub(super) fn none() -> Self {
        Self::NONE
    }

    /// Of two meanings of one payload type the later one counts, and telephone-event most.
    pub(super) fn new(media: &MediaPlan) -> Self {
        let event = media
            .telephone_event
            .map(|number| (number, Format::TelephoneEvent));
        let audio = media.receive.iter().rev().flatten();
        let audio = audio.map(|&(number, codec)| (number, Format::Audio(codec)));
        let mut formats = Self::NONE;
        for (place, format) in formats.0.iter_mut().zip(event.into_iter().chain(audio)) {
            *place = Some(format);
        }
        formats
    }

    /// What `payload_type` means, if it was negotiated.
    #[inline]
    pub(super) fn find(&self, payload_type: u8) -> Option<Format> {
        let known = self.0.iter().map_while(|format| *format);
        known
            .into_iter()
            .find(|(number, _)| *number == payload_type)
            .map(|(_, format)| format)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{Direction, SourceRule};

    #[test]
    fn a_type_means_what_was_negotiated_last() {
        let mut media = MediaPlan {
            remote: "192.0.2.1:4000".parse().unwrap(),
            direction: Direction {
                send: true,
                receive: true,
            },
            send_codec: Codec::Pcmu,
            send_payload_type: 0,
            send_ptime_ms: 20,
            receive: [None; RECEIVE_FORMATS_MAX],
            telephone_event: None,
            source: SourceRule::Strict,
        };
        assert_eq!(Formats::new(&media).find(0), None);
        media.receive[..3].copy_from_slice(&[
            Some((0, Codec::Pcmu)),
            Some((8, Codec::Pcma)),
            Some((0, Codec::L16)),
        ]);
        media.telephone_event = Some(101);
        let formats = Formats::new(&media);
        assert_eq!(formats.find(8), Some(Format::Audio(Codec::Pcma)));
        assert_eq!(formats.find(0), Some(Format::Audio(Codec::L16)));
        assert_eq!(formats.find(101), Some(Format::TelephoneEvent));
        assert_eq!(formats.find(9), None);
        media.telephone_event = Some(8);
        assert_eq!(Formats::new(&media).find(8), Some(Format::TelephoneEvent));
    }
}
