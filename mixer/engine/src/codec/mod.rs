//! Codecs of the engine: payload bytes to 8 kHz mono samples and back.
//!
//! All of them are stateless, so that a packet may be decoded in pieces.

pub mod g711;
pub mod l16;
pub mod plc;
pub(crate) mod wide;

use crate::media::Codec;

/// Samples that `payload` holds; 0 when its length does not fit the codec.
#[must_use]
pub fn samples(codec: Codec, payload: &[u8]) -> usize {
    match codec {
        Codec::Pcmu | Codec::Pcma => payload.len(),
        Codec::L16 if payload.len().is_multiple_of(2) => payload.len() / 2,
        Codec::L16 => 0,
    }
}

/// Decodes into the start of `out` and returns the number of samples written: as many as both
/// sides hold.
pub fn decode(codec: Codec, payload: &[u8], out: &mut [i16]) -> usize {
    match codec {
        Codec::Pcmu => g711::expand_pcmu(payload, out),
        Codec::Pcma => g711::expand_pcma(payload, out),
        Codec::L16 => l16::decode(payload, out),
    }
}

/// The sample that fills a frame of 160, when `payload` is what the codec makes of 20 ms of digital
/// silence. It is not zero in every codec.
#[must_use]
pub fn idle(codec: Codec, payload: &[u8]) -> Option<i16> {
    let sample = match codec {
        Codec::Pcmu | Codec::L16 => 0,
        Codec::Pcma => 8,
    };
    (payload == idle_payload(codec)).then_some(sample)
}

/// What a codec makes of 20 ms of digital silence.
#[must_use]
pub fn idle_payload(codec: Codec) -> &'static [u8] {
    match codec {
        Codec::Pcmu => &[0xFF; 160],
        Codec::Pcma => &[0xD5; 160],
        Codec::L16 => &[0; 320],
    }
}

/// Encodes into the start of `out` and returns the number of bytes written: as many whole samples
/// as both sides hold.
pub fn encode(codec: Codec, pcm: &[i16], out: &mut [u8]) -> usize {
    match codec {
        Codec::Pcmu => g711::compress_pcmu(pcm, out),
        Codec::Pcma => g711::compress_pcma(pcm, out),
        Codec::L16 => l16::encode(pcm, out),
    }
}
