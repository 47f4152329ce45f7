//! What a check found, and whether that is good enough.

use crate::ops::Sample;

/// What was compared with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Reverse mode against central differences, the whole Jacobian.
    Vjp,
    /// Forward mode against central differences, the whole Jacobian.
    Jvp,
    /// ⟨u, Jv⟩ against ⟨Jᵀu, v⟩.
    Dot,
    /// Some operands moving, or wanted, against all of them.
    Subsets,
    /// Several directions at once against one after the other.
    Directions,
    /// Kernels against the composition, the slope or the factors that they stand for.
    Composition,
    /// Strided operands, cotangents and tangents against contiguous copies.
    Layouts,
    /// Hessian-vector product by reverse over reverse, against differences of the gradient.
    ReverseOverReverse,
    /// Hessian-vector product by forward over reverse, against differences of the gradient.
    ForwardOverReverse,
    /// Hessian-vector product by reverse over forward, against differences of the gradient.
    ReverseOverForward,
    /// The second-order modes against each other, and against forward over forward.
    Agreement,
}

impl Kind {
    /// All kinds, in the order of tables.
    pub const ALL: [Kind; 11] = [
        Kind::Vjp,
        Kind::Jvp,
        Kind::Dot,
        Kind::Subsets,
        Kind::Directions,
        Kind::Composition,
        Kind::Layouts,
        Kind::ReverseOverReverse,
        Kind::ForwardOverReverse,
        Kind::ReverseOverForward,
        Kind::Agreement,
    ];

    /// Short lower-case name, as in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Vjp => "vjp",
            Kind::Jvp => "jvp",
            Kind::Dot => "dot",
            Kind::Subsets => "subsets",
            Kind::Directions => "directions",
            Kind::Composition => "composition",
            Kind::Layouts => "layouts",
            Kind::ReverseOverReverse => "rev/rev",
            Kind::ForwardOverReverse => "fwd/rev",
            Kind::ReverseOverForward => "rev/fwd",
            Kind::Agreement => "agreement",
        }
    }

    /// Largest error that passes: ‖Δ‖ / max(‖·‖, 1), for [`Kind::Dot`] |Δ| / (‖u‖ ‖Jv‖).
    pub const fn bound(self) -> f64 {
        match self {
            Kind::Vjp | Kind::Jvp => 1e-6,
            Kind::Dot | Kind::Subsets | Kind::Directions | Kind::Composition | Kind::Layouts => 1e-12,
            Kind::ReverseOverReverse | Kind::ForwardOverReverse | Kind::ReverseOverForward => 1e-5,
            Kind::Agreement => 1e-11,
        }
    }
}

/// One comparison.
#[derive(Clone, Copy, Debug)]
pub struct Finding {
    /// What was compared.
    pub kind: Kind,
    /// The operand it is about, if it is about one.
    pub operand: Option<usize>,
    /// How far apart the two were, in the measure of [`Kind::bound`].
    pub error: f64,
}

impl Finding {
    /// Whether it is within its bound; a NaN is not.
    pub fn passed(&self) -> bool {
        self.error <= self.kind.bound()
    }
}

/// All that was compared for one sample.
#[derive(Clone, Debug)]
pub struct Report {
    /// Name of the op.
    pub op: &'static str,
    /// Each comparison, in the order in which it was made.
    pub findings: Vec<Finding>,
}

impl Report {
    pub(super) fn new(sample: &Sample) -> Report {
        Report { op: sample.op.name(), findings: Vec::new() }
    }

    pub(super) fn add(&mut self, kind: Kind, operand: Option<usize>, error: f64) {
        self.findings.push(Finding { kind, operand, error });
    }

    /// Largest error of a kind, if anything of that kind was compared.
    pub fn worst(&self, kind: Kind) -> Option<f64> {
        self.findings.iter().filter(|finding| finding.kind == kind).map(|finding| finding.error).reduce(larger)
    }

    /// The first finding beyond its bound, in one line.
    pub fn verdict(&self) -> Result<(), String> {
        let Some(bad) = self.findings.iter().find(|finding| !finding.passed()) else { return Ok(()) };
        let operand = bad.operand.map(|i| format!(", operand {i}")).unwrap_or_default();
        let (kind, bound) = (bad.kind.name(), bad.kind.bound());
        Err(format!("{}{operand}: {kind} is off by {:.1e}, at most {bound:.0e} allowed", self.op, bad.error))
    }
}

/// The larger; NaN is larger than anything, so that it cannot hide.
pub(super) fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}
