//! What is in an adapter, and less of it.

use super::Adapter;
use super::names::by_pattern;
use super::sites::keys;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::lowrank::svd::Svd;
use crate::lowrank::{energy, product_svd, rank_for};
use crate::rank::{Bounds, Curve, Rule, allocate};
use crate::tensor::Tensor;
use std::collections::BTreeMap;

/// One layer's adapter.
#[derive(Clone, Debug)]
pub struct LayerReport {
    /// Name of the module, as in Hugging Face's files.
    pub module: String,
    /// `in` and `out` of the map; of an embedding, rows and width.
    pub sizes: [usize; 2],
    /// Rank r that it is stored with.
    pub rank: usize,
    /// Alpha.
    pub alpha: f64,
    /// Factor on A B.
    pub scale: f64,
    /// Singular values of s A B, largest first: min(r, in, out) of them.
    pub singular_values: Vec<f64>,
}

impl LayerReport {
    /// ‖s A B‖ in the Frobenius norm.
    pub fn norm(&self) -> f64 {
        self.singular_values.iter().map(|s| s * s).sum::<f64>().sqrt()
    }

    /// The part of ‖s A B‖² that the leading `rank` singular values have, from 0 to 1.
    pub fn energy(&self, rank: usize) -> f64 {
        energy(&self.singular_values, rank)
    }

    /// What each rank keeps of ‖s A B‖².
    pub fn curve(&self) -> Curve {
        Curve::of_singular_values(&self.module, self.sizes, &self.singular_values)
    }

    /// The smallest rank, at least 1, that keeps this part of ‖s A B‖².
    pub fn rank_for(&self, energy: f64) -> usize {
        rank_for(&self.singular_values, energy)
    }
}

/// How much of each layer's adapter is kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    /// So many singular values, or as many as there are.
    Rank(usize),
    /// As many as make up this part of ‖A B‖², in (0, 1].
    Energy(f64),
    /// So many parameters of all factors together, shared out by squares of singular values, at least rank 1 everywhere.
    Parameters(u64, Rule),
}

impl Budget {
    fn check(self) -> Result<()> {
        match self {
            Budget::Rank(0) => Err(Error::Config("an adapter of rank 0: give at least 1".into())),
            Budget::Energy(part) if !(part > 0.0 && part <= 1.0) => {
                Err(Error::Config(format!("an energy of {part}: give one above 0 and at most 1")))
            }
            _ => Ok(()),
        }
    }

    fn ranks(self, layers: &[LayerReport]) -> Result<Vec<usize>> {
        Ok(match self {
            Budget::Rank(rank) => layers.iter().map(|layer| rank.min(layer.singular_values.len())).collect(),
            Budget::Energy(part) => layers.iter().map(|layer| layer.rank_for(part)).collect(),
            Budget::Parameters(all, rule) => {
                let curves: Vec<Curve> = layers.iter().map(LayerReport::curve).collect();
                let costs: Vec<u64> = curves.iter().map(Curve::cost).collect();
                allocate(&curves, &costs, all, Bounds::default(), rule)?.ranks
            }
        })
    }
}

/// A layer's factors in double precision, A [in, r] and B [r, out], with what the configuration says.
struct Read {
    module: String,
    a: Tensor,
    b: Tensor,
    alpha: f64,
    scale: f64,
}

impl Adapter {
    fn read(&self) -> Result<Vec<Read>> {
        let faults = self.check(None);
        if !faults.is_empty() {
            return Err(Error::Data { path: self.folder.clone(), problem: faults.join("; ") });
        }
        let modules: Vec<&str> = self.modules().into_iter().collect();
        let alphas = by_pattern(&self.config.alphas, &modules)?;
        let read = |(module, alpha): (&str, Option<f64>)| {
            let [a, b, _] = keys(module, self.is_embedding(module)).map(|key| self.tensors.get(&key));
            let [a, b] = [a, b].map(|factor| factor.expect("checked above").cast(DType::F64).t());
            let alpha = alpha.unwrap_or(self.config.alpha);
            Read { module: module.into(), scale: self.config.scale(a.shape()[1], alpha), a, b, alpha }
        };
        Ok(modules.into_iter().zip(alphas).map(read).collect())
    }

    /// What each layer's adapter does, in the order of their names.
    ///
    /// Whatever [`Adapter::check`] finds without a model is an error.
    pub fn show(&self) -> Result<Vec<LayerReport>> {
        self.read()?.iter().map(|layer| Ok(layer.report(&layer.svd()?))).collect()
    }

    /// Parameters of all factors; those of a head that has its embedding's count once.
    ///
    /// Whatever [`Adapter::check`] finds without a model is an error.
    pub fn parameters(&self) -> Result<usize> {
        let layers = self.read()?;
        let mut all = 0;
        for layer in &layers {
            if self.table(layer, &layers)?.is_none() {
                all += layer.a.count() + layer.b.count();
            }
        }
        Ok(all)
    }

    /// The adapter with each layer's A B replaced by the nearest product of a smaller rank, in the Frobenius norm; factors,
    /// lengths and whole modules stay, and so do the types of the tensors.
    ///
    /// A rank of 0, an energy outside (0, 1], parameters that do not suffice for rank 1 everywhere, and whatever
    /// [`Adapter::check`] finds without a model are errors.
    pub fn shrink(&self, budget: Budget) -> Result<Adapter> {
        budget.check()?;
        if self.config.principal {
            let problem = "init_lora_weights: pissa takes as many singular values from the base as the rank says";
            return Err(Error::Config(format!("{problem}: shrink the adapter converted to a plain one")));
        }
        let (mut smaller, layers) = (self.clone(), self.read()?);
        let tables = layers.iter().map(|layer| self.table(layer, &layers)).collect::<Result<Vec<_>>>()?;
        let own: Vec<usize> = (0..layers.len()).filter(|&i| tables[i].is_none()).collect();
        let found = own.iter().map(|&i| layers[i].svd()).collect::<Result<Vec<Svd>>>()?;
        let reports: Vec<LayerReport> = own.iter().zip(&found).map(|(&i, found)| layers[i].report(found)).collect();
        let ranks = budget.ranks(&reports)?;
        let shrunk = found.into_iter().zip(ranks).map(|(found, rank)| shrunk(found, rank));
        let shrunk: BTreeMap<usize, [Tensor; 2]> = own.iter().copied().zip(shrunk).collect();
        let mut settled: Vec<(&str, usize, f64)> = Vec::new();
        for (i, layer) in layers.iter().enumerate() {
            let [a, b] = match tables[i] {
                Some(table) => [shrunk[&table][1].t(), shrunk[&table][0].t()],
                None => shrunk[&i].clone(),
            };
            settled.push((&layer.module, a.shape()[0], layer.scale));
            let [up, down, _] = keys(&layer.module, self.is_embedding(&layer.module));
            for (key, value) in [(up, a), (down, b)] {
                let dtype = self.tensors[&key].dtype();
                smaller.tensors.insert(key, value.cast(dtype).contiguous());
            }
        }
        smaller.config.settle(settled.into_iter());
        Ok(smaller)
    }

    /// Of a head that has its embedding's factors turned, the embedding's place: one is shrunk, and the other follows.
    fn table(&self, layer: &Read, all: &[Read]) -> Result<Option<usize>> {
        let same = |x: &Tensor, y: &Tensor| Ok(x.shape() == y.shape() && x.to_vec::<f64>()? == y.to_vec::<f64>()?);
        if super::sites::HEADS.contains(&&*layer.module) {
            for (i, table) in all.iter().enumerate().filter(|(_, table)| self.is_embedding(&table.module)) {
                if same(&layer.a.t(), &table.b)? && same(&layer.b.t(), &table.a)? {
                    return Ok(Some(i));
                }
            }
        }
        Ok(None)
    }
}

impl Read {
    fn svd(&self) -> Result<Svd> {
        product_svd(&self.a, &self.b)
    }

    fn report(&self, found: &Svd) -> LayerReport {
        let values = found.s.to_vec::<f64>().expect("singular values lie on the host in double precision");
        LayerReport {
            module: self.module.clone(),
            sizes: [self.a.shape()[0], self.b.shape()[1]],
            rank: self.a.shape()[1],
            alpha: self.alpha,
            scale: self.scale,
            singular_values: values.iter().map(|s| s * self.scale.abs()).collect(),
        }
    }
}

/// A [r, in] and B [out, r] of a smaller rank.
fn shrunk(found: Svd, rank: usize) -> [Tensor; 2] {
    let found = found.truncated(rank);
    let root = found.s.sqrt();
    [(found.u * &root).t(), found.v * &root]
}
