//! Forms of large or fixed things in the state: bytes instead of lists, without the zeros at their
//! end; what is missing at the end of what was read is zero again.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Bytes in a fixed array.
pub(crate) mod bytes {
    use super::{Deserializer, Error, Serializer, Wanted};

    pub(crate) fn serialize<S: Serializer, const N: usize>(
        bytes: &[u8; N],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let used = bytes
            .iter()
            .rposition(|&byte| byte != 0)
            .map_or(0, |last| last + 1);
        to.serialize_bytes(bytes.get(..used).unwrap_or_default())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
        from: D,
    ) -> Result<[u8; N], D::Error> {
        let read = from.deserialize_bytes(Wanted)?;
        let mut bytes = [0; N];
        let place = bytes.get_mut(..read.0.len());
        let place = place.ok_or_else(|| D::Error::invalid_length(read.0.len(), &"fewer bytes"))?;
        place.copy_from_slice(&read.0);
        Ok(bytes)
    }
}

/// Samples in a fixed array, low byte first.
pub(crate) mod samples {
    use super::{Deserializer, Error, Serializer, Wanted};

    pub(crate) fn serialize<S: Serializer, const N: usize>(
        samples: &[i16; N],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let used = samples
            .iter()
            .rposition(|&sample| sample != 0)
            .map_or(0, |last| last + 1);
        let used = samples.get(..used).unwrap_or_default();
        let bytes: Vec<u8> = used.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        to.serialize_bytes(&bytes)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
        from: D,
    ) -> Result<[i16; N], D::Error> {
        let read = from.deserialize_bytes(Wanted)?;
        let (pairs, odd) = read.0.as_chunks::<2>();
        if pairs.len() > N || !odd.is_empty() {
            return Err(D::Error::invalid_length(read.0.len(), &"fewer samples"));
        }
        let mut samples = [0; N];
        for (place, pair) in samples.iter_mut().zip(pairs) {
            *place = i16::from_le_bytes(*pair);
        }
        Ok(samples)
    }
}

/// A payload of any length.
#[derive(Debug)]
pub(crate) struct Bytes<'a>(pub(crate) std::borrow::Cow<'a, [u8]>);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(&self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Bytes<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_bytes(Wanted)
    }
}

/// Takes bytes, borrowed where that is possible.
struct Wanted;

impl<'de> Visitor<'de> for Wanted {
    type Value = Bytes<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<Bytes<'de>, E> {
        Ok(Bytes(bytes.into()))
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Bytes<'de>, E> {
        Ok(Bytes(bytes.to_vec().into()))
    }
}

/// Optional things at fixed places.
pub(crate) mod places {
    use super::{Deserialize, Deserializer, PhantomData, Places, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer, T: Serialize, const N: usize>(
        places: &[Option<T>; N],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let used = places
            .iter()
            .rposition(Option::is_some)
            .map_or(0, |last| last + 1);
        to.collect_seq(places.iter().take(used))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>, T: Deserialize<'de>, const N: usize>(
        from: D,
    ) -> Result<[Option<T>; N], D::Error> {
        from.deserialize_seq(Places(PhantomData))
    }
}

struct Places<T, const N: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Places<T, N> {
    type Value = [Option<T>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {N} places")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Self::Value, A::Error> {
        let mut places = [const { None }; N];
        let mut at = 0;
        while let Some(next) = from.next_element::<Option<T>>()? {
            *places
                .get_mut(at)
                .ok_or_else(|| A::Error::invalid_length(at, &self))? = next;
            at += 1;
        }
        Ok(places)
    }
}
