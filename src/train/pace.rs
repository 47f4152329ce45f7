//! Tokens per second.

use std::time::Duration;

/// How fast training goes.
#[derive(Default)]
pub struct Pace {
    interval: (u64, Duration),
    before: (u64, Duration),
}

impl Pace {
    /// Counts training, but neither validation nor saving.
    pub fn add(&mut self, tokens: u64, time: Duration) {
        self.interval.0 += tokens;
        self.interval.1 += time;
    }

    /// Starts a new interval.
    pub fn end_interval(&mut self) {
        self.before.0 += self.interval.0;
        self.before.1 += self.interval.1;
        self.interval = Default::default();
    }

    /// In this interval.
    pub fn tokens_per_second(&self) -> f64 {
        rate(self.interval)
    }

    /// Since the start.
    pub fn overall(&self) -> f64 {
        rate((self.before.0 + self.interval.0, self.before.1 + self.interval.1))
    }
}

fn rate((tokens, time): (u64, Duration)) -> f64 {
    if time.is_zero() { 0.0 } else { tokens as f64 / time.as_secs_f64() }
}
