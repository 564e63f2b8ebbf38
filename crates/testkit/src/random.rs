//! Numbers that follow from a seed.

/// An xorshift64* generator (Vigna, "An experimental exploration of Marsaglia's xorshift generators").
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// The same numbers for the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // Zero is the one state that it never leaves.
        Self(seed.wrapping_add(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Any number at all.
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`; 0 where there is none.
    pub fn below(&mut self, end: u64) -> u64 {
        // The lowest bits are the least random ones.
        (self.bits() >> 16) % end.max(1)
    }

    /// A place in something of this length.
    pub fn place(&mut self, len: usize) -> usize {
        let place = self.below(u64::try_from(len).unwrap_or(u64::MAX));
        usize::try_from(place).unwrap_or(0)
    }

    /// One of these.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.place(choices.len())]
    }
}
