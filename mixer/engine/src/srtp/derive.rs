//! Session keys from a master key (RFC 3711 4.3), at a key derivation rate of 0: once.

use aes::cipher::{BlockCipherEncrypt, BlockSizeUser, InnerIvInit, KeyInit, StreamCipher, consts::U16};
use aes::{Aes128Enc, Aes256Enc};
use ctr::CtrCore;
use ctr::cipher::StreamCipherCoreWrapper;
use ctr::flavors::Ctr128BE;
use zeroize::Zeroizing;

use super::MasterKey;

/// AES for encryption alone: counter modes need no more.
pub(super) enum Aes {
    Short(Aes128Enc),
    Long(Aes256Enc),
}

impl Aes {
    pub(super) fn short(key: &[u8; 16]) -> Self {
        Self::Short(Aes128Enc::new(key.into()))
    }

    pub(super) fn long(key: &[u8; 32]) -> Self {
        Self::Long(Aes256Enc::new(key.into()))
    }

    /// Counter mode from the block `iv` on, over `bytes`.
    #[inline]
    pub(super) fn count_over(&self, iv: &[u8; 16], bytes: &mut [u8]) {
        match self {
            Self::Short(aes) => count_over(aes, iv, bytes),
            Self::Long(aes) => count_over(aes, iv, bytes),
        }
    }
}

#[inline]
fn count_over<A: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>>(
    aes: &A,
    iv: &[u8; 16],
    bytes: &mut [u8],
) {
    let core: CtrCore<&A, Ctr128BE> = CtrCore::inner_iv_init(aes, iv.into());
    StreamCipherCoreWrapper::from_core(core).apply_keystream(bytes);
}

/// What a session key is for (RFC 3711 4.3.1, 4.3.2).
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(super) enum Label {
    RtpEncryption = 0,
    RtpAuthentication = 1,
    RtpSalt = 2,
    RtcpEncryption = 3,
    RtcpAuthentication = 4,
    RtcpSalt = 5,
}

/// The pseudo-random function of a master key (RFC 3711 4.3.3; with AES-256 RFC 6188 3).
pub(super) struct Derivation {
    aes: Aes,
    salt: [u8; 14],
}

impl Derivation {
    pub(super) fn new(master: &MasterKey) -> Self {
        let aes = if master.suite().key_bytes() == 32 {
            Aes::long(&Zeroizing::new(master.key()))
        } else {
            Aes::short(&Zeroizing::new(master.key()))
        };
        Self {
            aes,
            salt: master.salt(),
        }
    }

    /// `N` bytes for `label`.
    pub(super) fn bytes<const N: usize>(&self, label: Label) -> Zeroizing<[u8; N]> {
        let mut iv = [0; 16];
        iv.iter_mut()
            .zip(self.salt)
            .for_each(|(place, byte)| *place = byte);
        // The label stands before 48 bits of index, which a rate of 0 leaves at 0.
        iv[7] ^= label as u8;
        let mut bytes = Zeroizing::new([0; N]);
        self.aes.count_over(&iv, bytes.as_mut());
        bytes
    }
}
