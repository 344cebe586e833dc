//! Payload of a telephone-event packet (RFC 4733 2.3).

/// One named event as carried by one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TelephoneEvent {
    /// Event code: 0 to 9 digits, 10 `*`, 11 `#`, 12 to 15 `A` to `D`, 16 flash.
    pub event: u8,
    /// E bit: the event has ended.
    pub end: bool,
    /// Power in dBm0 with the sign dropped, 0 to 63.
    pub volume: u8,
    /// Duration so far in timestamp units.
    pub duration: u16,
}

impl TelephoneEvent {
    /// Reads the first event of a payload; absent when it is shorter than four bytes. Further
    /// events of a redundant payload are ignored: each was first in an earlier packet.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let [event, flags, high, low] = *payload.first_chunk::<4>()?;
        Some(Self {
            event,
            end: flags & 0x80 != 0,
            volume: flags & 0x3f,
            duration: u16::from_be_bytes([high, low]),
        })
    }

    /// The four bytes of the payload.
    #[must_use]
    pub fn emit(&self) -> [u8; 4] {
        let [high, low] = self.duration.to_be_bytes();
        [
            self.event,
            u8::from(self.end) << 7 | self.volume & 0x3f,
            high,
            low,
        ]
    }

    /// The key: `0`-`9`, `*`, `#`, `A`-`D`, `F` for flash; absent for other events.
    #[must_use]
    pub fn digit(&self) -> Option<char> {
        const KEYS: [char; 17] = [
            '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', '*', '#', 'A', 'B', 'C', 'D', 'F',
        ];
        KEYS.get(usize::from(self.event)).copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn emitted_event_reads_back(event: u8, end: bool, volume in 0_u8..64, duration: u16) {
            let sent = TelephoneEvent { event, end, volume, duration };
            prop_assert_eq!(TelephoneEvent::parse(&sent.emit()), Some(sent));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..16)) {
            prop_assert_eq!(TelephoneEvent::parse(&bytes).is_some(), bytes.len() >= 4);
        }
    }

    #[test]
    fn keys_are_those_of_rfc_4733() {
        let key = |event| {
            TelephoneEvent {
                event,
                end: false,
                volume: 10,
                duration: 160,
            }
            .digit()
        };
        assert_eq!(
            [key(0), key(9), key(10), key(11)],
            [Some('0'), Some('9'), Some('*'), Some('#')]
        );
        assert_eq!(
            [key(12), key(15), key(16), key(17)],
            [Some('A'), Some('D'), Some('F'), None]
        );
    }
}
