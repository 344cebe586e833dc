//! Published vectors: RFC 3711 appendix B, RFC 6188 section 7, RFC 7714 sections 16 and 17.

use super::*;
use crate::srtp::cipher::{PacketId, Transform};

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().filter_map(|c| c.to_digit(16)).collect();
    let pairs = digits.chunks(2);
    pairs
        .map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap())
        .collect()
}

fn array<const N: usize>(hex: &str) -> [u8; N] {
    bytes(hex).try_into().unwrap()
}

/// Blocks of keystream from a counter on.
fn keystream(aes: &Aes, counter: &str, blocks: usize) -> Vec<u8> {
    let mut stream = vec![0; 16 * blocks];
    aes.count_over(&array(counter), &mut stream);
    stream
}

#[test]
fn rfc_3711_b_2_keystream_of_aes_128() {
    let aes = Aes::short(&array("2B7E151628AED2A6ABF7158809CF4F3C"));
    assert_eq!(
        keystream(&aes, "F0F1F2F3F4F5F6F7F8F9FAFBFCFD0000", 3),
        bytes(
            "E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB 41E95B3BB0A2E8DD477901E4FCA894C0"
        )
    );
    assert_eq!(
        keystream(&aes, "F0F1F2F3F4F5F6F7F8F9FAFBFCFDFEFF", 3),
        bytes(
            "EC8CDF7398607CB0F2D21675EA9EA1E4 362B7C3C6773516318A077D7FC5073AE 6A2CC3787889374FBEB4C81B17BA6C44"
        )
    );
}

#[test]
fn rfc_6188_7_1_keystream_of_aes_256() {
    let aes = Aes::long(&array(
        "57f82fe3613fd170a85ec93c40b1f092 2ec4cb0dc025b58272147cc438944a98",
    ));
    assert_eq!(
        keystream(&aes, "f0f1f2f3f4f5f6f7f8f9fafbfcfd0000", 3),
        bytes(
            "92bdd28a93c3f52511c677d08b5515a4 9da71b2378a854f67050756ded165bac 63c4868b7096d88421b563b8c94c9a31"
        )
    );
    assert_eq!(
        keystream(&aes, "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff", 3),
        bytes(
            "cea518c90fd91ced9cbb18c078a54711 3dbc4814f4da5f00a08772b63c6a046d 6eb246913062a16891433e97dd01a57f"
        )
    );
}

#[test]
fn rfc_3711_b_3_key_derivation() {
    let master = "E1F97A0D3E018BE0D64FA32C06DE4139 0EC675AD498AFEEBB6960B3AABE6";
    let master = MasterKey::new(Suite::AesCm128HmacSha1Tag80, &bytes(master)).unwrap();
    let derivation = Derivation::new(&master);
    assert_eq!(
        *derivation.bytes(Label::RtpEncryption),
        array::<16>("C61E7A93744F39EE10734AFE3FF7A087")
    );
    assert_eq!(
        *derivation.bytes(Label::RtpSalt),
        array::<14>("30CBBC08863D8C85D49DB34A9AE1")
    );
    // Its first 20 of 94 bytes.
    assert_eq!(
        *derivation.bytes(Label::RtpAuthentication),
        array::<20>("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4")
    );
}

#[test]
fn rfc_6188_7_2_key_derivation() {
    let master =
        "f0f04914b513f2763a1b1fa130f10e29 98f6f6e43e4309d1e622a0e332b9f1b6 3b04803de51ee7c96423ab5b78d2";
    let master = MasterKey::new(Suite::AesCm256HmacSha1Tag80, &bytes(master)).unwrap();
    let derivation = Derivation::new(&master);
    assert_eq!(
        *derivation.bytes(Label::RtpEncryption),
        array::<32>("5ba1064e30ec51613cad926c5a28ef73 1ec7fb397f70a960653caf06554cd8c4")
    );
    assert_eq!(
        *derivation.bytes(Label::RtpSalt),
        array::<14>("fa31791685ca444a9e07c6c64e93")
    );
    assert_eq!(
        *derivation.bytes(Label::RtpAuthentication),
        array::<20>("fd9c32d39ed5fbb5a9dc96b30818454d1313dc05")
    );
}

const RTP: &str = "8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973 20646976 69736120 696e2070 61727465 73207472 6573";
const RTP_ID: PacketId = PacketId {
    ssrc: 0x5501_a0b2,
    index: 0xf17b,
};
const RTCP: &str = "81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61 deadbeef deadbeef deadbeef \
                    deadbeef deadbeef";
const RTCP_ID: PacketId = PacketId {
    ssrc: 0x4d61_7273,
    index: 0x5d4,
};

/// RFC 7714 gives session keys, not master keys.
fn galois(suite: Suite) -> Transform {
    Transform::of_session_keys(
        suite,
        &array("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"),
        array("517569642070726f2071756f"),
    )
}

#[test]
fn rfc_7714_16_rtp() {
    let vectors = [
        (
            Suite::AeadAes128Gcm,
            "8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5 0d294e6f 42a5f47a 51c7d19b 36de3adf \
             8833899d 7f27beb1 6a9152cf 765ee439 0cce",
        ),
        (
            Suite::AeadAes256Gcm,
            "8040f17b 8041f8d3 5501a0b2 32b1de78 a822fe12 ef9f78fa 332e33aa b1801238 9a58e2f3 b50b2a02 76ffae0f 1ba63799 \
             b87b7aa3 db36dfff d6b0f9bb 7878d7a7 6c13",
        ),
    ];
    for (suite, protected) in vectors {
        let (transform, plain, protected) = (galois(suite), bytes(RTP), bytes(protected));
        let mut buffer = plain.clone();
        buffer.resize(protected.len(), 0);
        assert_eq!(
            transform.protect_rtp(&mut buffer, 12, plain.len(), RTP_ID),
            Some(protected.len())
        );
        assert_eq!(buffer, protected, "{suite:?}");
        assert_eq!(transform.unprotect_rtp(&mut buffer, 12, RTP_ID), Ok(plain.len()));
        assert_eq!(buffer[..plain.len()], plain);
    }
}

#[test]
fn rfc_7714_17_rtcp() {
    let vectors = [
        (
            Suite::AeadAes128Gcm,
            "81c8000d 4d617273 63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d c676a5f1 730d6fda 4ce09b46 86303ded \
             0bb9275b c84aa458 96cf4d2f c5abf872 45d9eade 800005d4",
        ),
        (
            Suite::AeadAes256Gcm,
            "81c8000d 4d617273 d50ae4d1 f5ce5d30 4ba297e4 7d470c28 2c3ece5d bffe0a50 a2eaa5c1 110555be 8415f658 c61de047 \
             6f1b6fad 1d1eb30c 4446839f 57ff6f6c b26ac3be 800005d4",
        ),
    ];
    for (suite, protected) in vectors {
        let (transform, plain, protected) = (galois(suite), bytes(RTCP), bytes(protected));
        let mut buffer = plain.clone();
        buffer.resize(protected.len(), 0);
        assert_eq!(
            transform.protect_rtcp(&mut buffer, plain.len(), RTCP_ID),
            Some(protected.len())
        );
        assert_eq!(buffer, protected, "{suite:?}");
        assert_eq!(transform.rtcp_word(&buffer), Some(0x8000_05d4));
        assert_eq!(transform.unprotect_rtcp(&mut buffer, RTCP_ID), Ok(plain.len()));
        assert_eq!(buffer[..plain.len()], plain);
    }
}

/// RFC 7714 17.3 and 17.4: authentic, but not encrypted. SDES could ask for it, and we do not (M-52).
#[test]
fn rtcp_that_is_not_encrypted_is_refused() {
    let word = "841dd968 3dd78ec9 2ae58790 125f62b3 000005d4";
    let mut packet = bytes(RTCP);
    packet.extend(bytes(word));
    let mut receiver = Receiving::new(key(Suite::AeadAes128Gcm, 1));
    receiver.rtcp = galois(Suite::AeadAes128Gcm);
    assert_eq!(
        receiver.unprotect_rtcp(&mut packet),
        Err(UnprotectError::NotAuthentic)
    );
}
