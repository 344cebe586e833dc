//! RTP fixed header, CSRC list, extension and padding (RFC 3550 5.1, 5.3.1).
//!
//! [`RtpView`] borrows a received datagram after all its lengths were checked; [`RtpRepr`] writes
//! the header of an outgoing packet. What else may share a port is told apart in `demux`.

use crate::counters::DropReason;

/// Length of the fixed header.
pub const FIXED_HEADER: usize = 12;

/// Highest number of CSRCs a header can carry.
pub const CSRC_MAX: usize = 15;

/// A checked RTP packet.
#[derive(Debug, Clone, Copy)]
pub struct RtpView<'a> {
    fixed: &'a [u8; FIXED_HEADER],
    csrc: &'a [u8],
    payload: &'a [u8],
}

impl<'a> RtpView<'a> {
    /// Checks version and every length of `datagram`.
    ///
    /// # Errors
    /// [`DropReason::BadVersion`] or [`DropReason::Malformed`] (RFC 3550 A.1).
    pub fn parse(datagram: &'a [u8]) -> Result<Self, DropReason> {
        let (fixed, rest) = datagram
            .split_first_chunk::<FIXED_HEADER>()
            .ok_or(DropReason::Malformed)?;
        let first = fixed[0];
        if first >> 6 != 2 {
            return Err(DropReason::BadVersion);
        }
        let csrc_length = usize::from(first & 0x0f) * 4;
        let (csrc, mut rest) = rest.split_at_checked(csrc_length).ok_or(DropReason::Malformed)?;
        if first & 0x10 != 0 {
            let (head, after) = rest.split_first_chunk::<4>().ok_or(DropReason::Malformed)?;
            let words = usize::from(u16::from_be_bytes([head[2], head[3]]));
            rest = after.get(words * 4..).ok_or(DropReason::Malformed)?;
        }
        if first & 0x20 != 0 {
            // RFC 3550 5.1: the last octet counts the padding, itself included.
            let padding = usize::from(*rest.last().ok_or(DropReason::Malformed)?);
            let length = rest.len().checked_sub(padding).ok_or(DropReason::Malformed)?;
            if padding == 0 {
                return Err(DropReason::Malformed);
            }
            rest = rest.get(..length).ok_or(DropReason::Malformed)?;
        }
        Ok(Self {
            fixed,
            csrc,
            payload: rest,
        })
    }

    /// Payload type, 0 to 127.
    #[must_use]
    pub fn payload_type(&self) -> u8 {
        self.fixed[1] & 0x7f
    }

    /// Marker bit.
    #[must_use]
    pub fn marker(&self) -> bool {
        self.fixed[1] & 0x80 != 0
    }

    /// Sequence number.
    #[must_use]
    pub fn sequence(&self) -> u16 {
        u16::from_be_bytes([self.fixed[2], self.fixed[3]])
    }

    /// RTP timestamp.
    #[must_use]
    pub fn timestamp(&self) -> u32 {
        u32::from_be_bytes([self.fixed[4], self.fixed[5], self.fixed[6], self.fixed[7]])
    }

    /// Synchronisation source.
    #[must_use]
    pub fn ssrc(&self) -> u32 {
        u32::from_be_bytes([self.fixed[8], self.fixed[9], self.fixed[10], self.fixed[11]])
    }

    /// Contributing sources.
    pub fn csrcs(&self) -> impl Iterator<Item = u32> + 'a {
        self.csrc
            .as_chunks::<4>()
            .0
            .iter()
            .map(|bytes| u32::from_be_bytes(*bytes))
    }

    /// Payload without padding.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

/// Bytes in front of the payload: fixed header, CSRC list and extension. `None` when the packet is shorter; what
/// lies behind may be encrypted and is not looked at.
#[must_use]
pub fn header_bytes(packet: &[u8]) -> Option<usize> {
    let first = *packet.first()?;
    let mut length = FIXED_HEADER + usize::from(first & 0x0f) * 4;
    if first & 0x10 != 0 {
        let head = packet.get(length..)?.first_chunk::<4>()?;
        length += 4 + 4 * usize::from(u16::from_be_bytes([head[2], head[3]]));
    }
    (length <= packet.len()).then_some(length)
}

/// Header of an outgoing packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RtpRepr<'a> {
    /// Payload type, 0 to 127.
    pub payload_type: u8,
    /// Marker bit.
    pub marker: bool,
    /// Sequence number.
    pub sequence: u16,
    /// RTP timestamp.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: u32,
    /// Contributing sources; what exceeds [`CSRC_MAX`] is left out.
    pub csrc: &'a [u32],
}

impl RtpRepr<'_> {
    /// Bytes that [`Self::emit`] writes.
    #[must_use]
    pub fn header_length(&self) -> usize {
        FIXED_HEADER + 4 * self.csrc.len().min(CSRC_MAX)
    }

    /// Writes the header to the start of `buffer` and returns its length; 0, and nothing written,
    /// when the buffer is too short.
    #[must_use]
    pub fn emit(&self, buffer: &mut [u8]) -> usize {
        let length = self.header_length();
        let Some((fixed, list)) = buffer
            .get_mut(..length)
            .and_then(|header| header.split_first_chunk_mut::<FIXED_HEADER>())
        else {
            return 0;
        };
        let [v0, v1, s0, s1] = self.first_word().to_be_bytes();
        let [t0, t1, t2, t3] = self.timestamp.to_be_bytes();
        let [i0, i1, i2, i3] = self.ssrc.to_be_bytes();
        *fixed = [v0, v1, s0, s1, t0, t1, t2, t3, i0, i1, i2, i3];
        for (place, source) in list.as_chunks_mut::<4>().0.iter_mut().zip(self.csrc) {
            *place = source.to_be_bytes();
        }
        length
    }

    /// The sum of what [`Self::emit`] writes ([`crate::wire::checksum::add`]).
    #[must_use]
    pub fn sum(&self) -> u64 {
        let fixed = [self.first_word(), self.timestamp, self.ssrc];
        let listed = self.csrc.iter().take(CSRC_MAX);
        fixed
            .iter()
            .chain(listed)
            .map(|word| u64::from(word.to_be()))
            .sum()
    }

    /// Version, number of contributing sources, marker, payload type and sequence number (RFC 3550 5.1).
    #[inline]
    fn first_word(&self) -> u32 {
        let count = u8::try_from(self.csrc.len().min(CSRC_MAX)).unwrap_or(0);
        let kind = self.payload_type & 0x7f | u8::from(self.marker) << 7;
        let [s0, s1] = self.sequence.to_be_bytes();
        u32::from_be_bytes([0x80 | count, kind, s0, s1])
    }
}

#[cfg(test)]
mod tests;
