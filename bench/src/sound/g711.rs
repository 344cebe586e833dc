//! G.711 both laws (ITU-T G.711), written independently of the mixer's codec.

/// Which companding law.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Law {
    /// Mu-law, RTP payload type 0.
    Pcmu,
    /// A-law, RTP payload type 8.
    Pcma,
}

impl Law {
    /// Static RTP payload type (RFC 3551 6).
    #[must_use]
    pub fn payload_type(self) -> u8 {
        match self {
            Self::Pcmu => 0,
            Self::Pcma => 8,
        }
    }

    /// Name in SDP.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
        }
    }

    /// Code word of digital silence.
    #[must_use]
    pub fn silence(self) -> u8 {
        match self {
            Self::Pcmu => 0xff,
            Self::Pcma => 0xd5,
        }
    }

    /// Code word of a 16-bit sample.
    #[must_use]
    pub fn encode(self, sample: i16) -> u8 {
        match self {
            Self::Pcmu => encode_mu(sample),
            Self::Pcma => encode_a(sample),
        }
    }

    /// 16-bit sample of a code word.
    #[must_use]
    pub fn decode(self, code: u8) -> i16 {
        match self {
            Self::Pcmu => DECODE_MU[usize::from(code)],
            Self::Pcma => DECODE_A[usize::from(code)],
        }
    }
}

fn encode_mu(sample: i16) -> u8 {
    let negative = sample < 0;
    let magnitude = sample.unsigned_abs().min(32_635) + 132;
    let segment = 8 - magnitude.leading_zeros();
    let step = (magnitude >> (segment + 3)) & 0x0f;
    !(byte(segment, step) | if negative { 0x80 } else { 0 })
}

fn encode_a(sample: i16) -> u8 {
    let (mask, magnitude) = if sample >= 0 {
        (0xd5, sample.unsigned_abs())
    } else {
        (0x55, sample.unsigned_abs() - 1)
    };
    let segment = 8u32.saturating_sub(magnitude.leading_zeros());
    let shift = if segment == 0 { 4 } else { segment + 3 };
    let step = (magnitude >> shift) & 0x0f;
    byte(segment, step) ^ mask
}

/// Three bits of segment, four of step.
fn byte(segment: u32, step: u16) -> u8 {
    let [.., segment] = (segment << 4).to_be_bytes();
    let [_, step] = step.to_be_bytes();
    segment | step
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "magnitudes fit 16 bits by construction"
)]
const DECODE_MU: [i16; 256] = {
    let mut table = [0; 256];
    let mut code = 0;
    while code < 256 {
        let bits = !code;
        let magnitude = ((((bits & 0x0f) << 3) + 132) << ((bits & 0x70) >> 4)) - 132;
        table[code as usize] = if bits & 0x80 == 0 {
            magnitude as i16
        } else {
            -(magnitude as i16)
        };
        code += 1;
    }
    table
};

#[expect(
    clippy::cast_possible_truncation,
    reason = "magnitudes fit 16 bits by construction"
)]
const DECODE_A: [i16; 256] = {
    let mut table = [0; 256];
    let mut code = 0;
    while code < 256 {
        let bits: i32 = code ^ 0x55;
        let segment = (bits & 0x70) >> 4;
        let step = ((bits & 0x0f) << 4) + 8;
        let magnitude = if segment == 0 {
            step
        } else {
            (step + 256) << (segment - 1)
        };
        table[code as usize] = if bits & 0x80 == 0 {
            -(magnitude as i16)
        } else {
            magnitude as i16
        };
        code += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_points_of_both_laws() {
        assert_eq!(Law::Pcmu.decode(0x00), -32_124);
        assert_eq!(Law::Pcmu.decode(0x80), 32_124);
        assert_eq!(Law::Pcmu.decode(0xff), 0);
        assert_eq!(Law::Pcmu.encode(0), 0xff);
        assert_eq!(Law::Pcma.decode(0xd5), 8);
        assert_eq!(Law::Pcma.decode(0x55), -8);
        assert_eq!(Law::Pcma.decode(0xaa), 32_256);
        assert_eq!(Law::Pcma.encode(i16::MIN), 0x2a);
    }

    #[test]
    fn every_code_word_survives_and_errors_stay_within_half_a_step() {
        for law in [Law::Pcmu, Law::Pcma] {
            for code in 0..=255u8 {
                let value = law.decode(code);
                let again = law.decode(law.encode(value));
                assert_eq!(again, value, "{law:?} {code:#x}");
            }
            for sample in i16::MIN..=i16::MAX {
                let error = i32::from(law.decode(law.encode(sample))) - i32::from(sample);
                let room = (i32::from(sample).abs() / 32 + 9).max(9);
                assert!(error.abs() <= room.max(if sample.unsigned_abs() > 32_000 { 650 } else { 0 }));
            }
        }
    }
}
