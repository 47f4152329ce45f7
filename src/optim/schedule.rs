//! Learning rate as a function of the step.

/// Linear warm-up, then a cosine down to a floor (Loshchilov & Hutter 2017).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Highest rate.
    pub peak: f64,
    /// Last rate.
    pub floor: f64,
    /// Steps of linear warm-up.
    pub warmup: u64,
    /// Step at which the floor is reached.
    pub steps: u64,
}

impl Schedule {
    /// The same rate always.
    pub fn constant(rate: f64) -> Schedule {
        Schedule { peak: rate, floor: rate, warmup: 0, steps: 0 }
    }

    /// Rate of step `step`, counted from 0.
    pub fn rate(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.peak * (step + 1) as f64 / self.warmup as f64;
        }
        let progress = (step - self.warmup) as f64 / self.steps.saturating_sub(self.warmup).max(1) as f64;
        let cosine = (std::f64::consts::PI * progress.min(1.0)).cos();
        self.floor + (self.peak - self.floor) * 0.5 * (1.0 + cosine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warms_up_then_falls_to_the_floor() {
        let schedule = Schedule { peak: 1.0, floor: 0.1, warmup: 4, steps: 104 };
        assert_eq!(schedule.rate(0), 0.25);
        assert_eq!(schedule.rate(4), 1.0);
        assert!((schedule.rate(54) - 0.55).abs() < 1e-12);
        assert!((schedule.rate(104) - 0.1).abs() < 1e-12 && (schedule.rate(900) - 0.1).abs() < 1e-12);
        assert_eq!(Schedule::constant(0.3).rate(7), 0.3);
    }
}
