//! What guest and daemon agreed on, as one value.

use crate::flags::InitFlags;

/// Result of an INIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// FUSE revision (7.x) that both speak.
    pub minor: u8,
    /// What was agreed on.
    pub flags: InitFlags,
}

impl Negotiated {
    /// Least revision served: Linux 5.4 speaks 7.31, and virtio-fs never spoke less than this.
    pub const LEAST_MINOR: u8 = 27;
    /// Newest revision served.
    pub const NEWEST_MINOR: u8 = 45;

    const MINOR_SHIFT: u32 = 56;

    /// The value in one word, so that every queue reads it without a lock. Never zero.
    pub(crate) fn to_bits(self) -> u64 {
        (u64::from(self.minor) << Self::MINOR_SHIFT) | self.flags.bits()
    }

    /// Reads the word; `None` for zero, which stands for "no INIT yet".
    pub(crate) fn from_bits(bits: u64) -> Option<Self> {
        let [.., minor] = bits.to_le_bytes();
        let flags = InitFlags::from_bits_truncate(bits & !(0xff << Self::MINOR_SHIFT));
        (minor != 0).then_some(Self { minor, flags })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_keeps_everything() {
        for minor in [Negotiated::LEAST_MINOR, Negotiated::NEWEST_MINOR] {
            for flags in [InitFlags::empty(), InitFlags::all()] {
                let value = Negotiated { minor, flags };
                assert_eq!(Negotiated::from_bits(value.to_bits()), Some(value));
            }
        }
        assert_eq!(Negotiated::from_bits(0), None);
    }
}
