//! The committed object, embedded. `scripts/build-xdp` writes it; no compiler of C takes part in a build.

/// Name of the program in [`OBJECT`].
pub const PROGRAM: &str = "mixminus";

/// The ELF object with program, maps and BTF, aligned to 8 bytes as a loader's ELF reader wants it.
pub static OBJECT: &[u8] = &ALIGNED.bytes;

/// SHA-256 of [`OBJECT`] in lower-case hexadecimal, as committed beside it.
pub const OBJECT_SHA256: &str = include_str!("../../object/xdp.o.sha256").split_at(64).0;

#[repr(C, align(8))]
struct Aligned<Bytes: ?Sized> {
    bytes: Bytes,
}

static ALIGNED: &Aligned<[u8]> = &Aligned {
    bytes: *include_bytes!("../../object/xdp.o"),
};
