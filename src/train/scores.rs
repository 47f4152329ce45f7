//! How well a classifier does.

use serde::Serialize;

/// Figures of a classifier's likeliest classes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Scores {
    /// Texts.
    pub examples: usize,
    /// The part that was told right.
    pub accuracy: f64,
    /// Harmonic mean of precision and recall: of the second of two classes, or the mean over those of several that occur.
    pub f1: f64,
    /// Which of both: `binary` or `macro`.
    pub f1_average: &'static str,
    /// Matthews' correlation of classes told and true, for several classes in Gorodkin's form (2004, "Comparing two
    /// K-category assignments by a K-category correlation coefficient", equation 8); 0 where one of both is constant.
    pub matthews: f64,
}

/// How many texts of each class were taken for which.
pub struct Confusion {
    classes: usize,
    /// [true, told].
    counts: Vec<usize>,
}

impl Confusion {
    /// Of no texts yet.
    pub fn new(classes: usize) -> Confusion {
        Confusion { classes, counts: vec![0; classes * classes] }
    }

    /// Counts texts of class `truth` that were taken for `told`.
    pub fn add(&mut self, truth: &[u32], told: &[u32]) {
        for (&truth, &told) in truth.iter().zip(told) {
            self.counts[truth as usize * self.classes + told as usize] += 1;
        }
    }

    /// What it comes to.
    pub fn scores(&self) -> Scores {
        let classes = 0..self.classes;
        let count = |truth: usize, told: usize| self.counts[truth * self.classes + told] as f64;
        let truth: Vec<f64> = classes.clone().map(|i| classes.clone().map(|j| count(i, j)).sum()).collect();
        let told: Vec<f64> = classes.clone().map(|j| classes.clone().map(|i| count(i, j)).sum()).collect();
        let (all, right): (f64, f64) = (truth.iter().sum(), classes.clone().map(|i| count(i, i)).sum());
        let f1 = |i: usize| if truth[i] + told[i] == 0.0 { 0.0 } else { 2.0 * count(i, i) / (truth[i] + told[i]) };
        let (f1, f1_average) = match self.classes {
            2 => (f1(1), "binary"),
            _ => {
                let there: Vec<usize> = classes.filter(|&i| truth[i] + told[i] > 0.0).collect();
                (there.iter().map(|&i| f1(i)).sum::<f64>() / there.len().max(1) as f64, "macro")
            }
        };
        Scores {
            examples: all as usize,
            accuracy: right / all,
            f1,
            f1_average,
            matthews: matthews(right, &truth, &told),
        }
    }
}

/// (c s − Σ pₖ tₖ) / √((s² − Σ pₖ²)(s² − Σ tₖ²)) of c right among s, pₖ told and tₖ true of each class.
fn matthews(right: f64, truth: &[f64], told: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let all: f64 = truth.iter().sum();
    let spread = (all * all - dot(told, told)) * (all * all - dot(truth, truth));
    if spread == 0.0 { 0.0 } else { (right * all - dot(told, truth)) / spread.sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(classes: usize, pairs: &[(u32, u32)]) -> Scores {
        let mut found = Confusion::new(classes);
        let (truth, told): (Vec<u32>, Vec<u32>) = pairs.iter().copied().unzip();
        found.add(&truth, &told);
        found.scores()
    }

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
    }

    /// 6 true positives, 1 false negative, 2 false positives, 3 true negatives.
    #[test]
    fn two_classes() {
        let pairs = [vec![(1, 1); 6], vec![(1, 0)], vec![(0, 1); 2], vec![(0, 0); 3]].concat();
        let found = scores(2, &pairs);
        assert_eq!((found.examples, found.f1_average), (12, "binary"));
        near(found.accuracy, 9.0 / 12.0);
        near(found.f1, 12.0 / 15.0);
        near(found.matthews, (6.0 * 3.0 - 2.0 * 1.0) / (8.0_f64 * 7.0 * 5.0 * 4.0).sqrt());
        near(scores(2, &[(0, 0), (1, 0)]).matthews, 0.0);
        near(scores(2, &[(0, 1), (1, 0)]).matthews, -1.0);
    }

    /// As scikit-learn has it: f1_score(average="macro") and matthews_corrcoef of these six.
    #[test]
    fn several_classes() {
        let found = scores(4, &[(0, 0), (1, 2), (2, 1), (0, 0), (1, 0), (2, 1)]);
        assert_eq!(found.f1_average, "macro");
        near(found.f1, (0.8 + 0.0 + 0.0) / 3.0);
        near(found.matthews, 0.0);
        // The correlation of both as rows with a one at the class.
        near(scores(3, &[(0, 0), (0, 1), (1, 1), (1, 1), (2, 2), (2, 2), (2, 0)]).matthews, 19.0 / 32.0);
        near(scores(3, &[(0, 0), (1, 1), (2, 2)]).matthews, 1.0);
    }
}
