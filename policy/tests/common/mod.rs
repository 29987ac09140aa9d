//! What these tests share.

/// `normal` tries, or `long` with `COUNTERSIGN_LONG=1`, as `packaging/test.sh --long` sets it.
pub fn tries(normal: u64, long: u64) -> u64 {
    let is_long = std::env::var("COUNTERSIGN_LONG").is_ok_and(|value| value == "1");
    if is_long { long } else { normal }
}

/// A counter, well mixed: enough to choose, and the same everywhere.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.number() % end.max(1) as u64).expect("small")
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}
