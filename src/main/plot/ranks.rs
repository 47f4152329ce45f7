//! Which rank went where, and how curved a loss is, as SVG.

use super::{Area, COLORS, SIZE, is_whole};
use eckart::rank::{Curve, Density};
use eckart::{Error, Result};
use plotters::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;

type Drawn<'a> = std::result::Result<(), Box<dyn std::error::Error + 'a>>;

fn failed(path: &Path) -> impl Fn(&dyn std::fmt::Display) -> Error + '_ {
    |error| Error::File { path: path.into(), source: std::io::Error::other(error.to_string()) }
}

/// Ranks of layers as bars, first layer on top, beside gains by rank.
pub fn ranks(path: &Path, curves: &[Curve], ranks: &BTreeMap<String, usize>) -> Result<()> {
    let failed = failed(path);
    let rank = |i: usize| ranks.get(&curves[i].path).copied().unwrap_or_default();
    let most = (0..curves.len()).map(rank).max().unwrap_or(0).max(1);
    let root = SVGBackend::new(path, (2 * SIZE.0, 80 + 22 * curves.len().max(16) as u32)).into_drawing_area();
    let bars = || -> Drawn<'_> {
        root.fill(&WHITE)?;
        let (left, right) = root.split_horizontally(SIZE.0);
        let mut chart = ChartBuilder::on(&left)
            .caption("rank by layer", ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(30)
            .y_label_area_size(300)
            .build_cartesian_2d(0.0..most as f64 * 1.05, -0.5..curves.len() as f64 - 0.5)?;
        let name = |place: &f64| {
            let layer = curves.iter().rev().nth(place.round() as usize).filter(|_| is_whole(*place));
            layer.map_or("", |layer| &*layer.path).to_string()
        };
        let whole = |rank: &f64| if is_whole(*rank) { format!("{rank:.0}") } else { String::new() };
        chart
            .configure_mesh()
            .disable_y_mesh()
            .light_line_style(WHITE)
            .y_labels(2 * curves.len())
            .y_label_formatter(&name)
            .x_label_formatter(&whole)
            .draw()?;
        chart.draw_series((0..curves.len()).map(|i| {
            let place = (curves.len() - 1 - i) as f64;
            Rectangle::new([(0.0, place - 0.35), (rank(i) as f64, place + 0.35)], COLORS[4].filled())
        }))?;
        gains(&right, curves)
    };
    bars().map_err(|error| failed(&error))?;
    root.present().map_err(|error| failed(&error))
}

/// Gains by rank, a curve for each layer, on a logarithmic axis.
fn gains(area: &Area<'_>, curves: &[Curve]) -> Drawn<'static> {
    let all = || curves.iter().flat_map(|curve| &curve.gains).copied().filter(|gain| *gain > 0.0);
    let top = all().fold(f64::MIN_POSITIVE, f64::max);
    let bottom = all().fold(top, f64::min).max(top * 1e-8);
    let most = curves.iter().map(|curve| curve.gains.len()).max().unwrap_or(1);
    let mut chart = ChartBuilder::on(area)
        .caption("what each further rank wins", ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(30)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..most as f64, (bottom / 2.0..top * 2.0).log_scale())?;
    let label = |gain: &f64| format!("{gain:.0e}");
    chart.configure_mesh().light_line_style(WHITE).x_desc("rank").y_label_formatter(&label).draw()?;
    for (curve, color) in curves.iter().zip(COLORS.iter().cycle()) {
        let points = curve.gains.iter().enumerate().map(|(i, gain)| ((i + 1) as f64, gain.max(bottom / 2.0)));
        chart.draw_series(LineSeries::new(points, color.stroke_width(1)))?;
    }
    Ok(())
}

/// A spectral density, each point spread by a hundredth of the range, on a logarithmic axis.
pub fn density(path: &Path, density: &Density) -> Result<()> {
    let failed = failed(path);
    let places = || density.points.iter().map(|[place, _]| *place);
    let (low, high) = (places().fold(f64::INFINITY, f64::min), places().fold(f64::NEG_INFINITY, f64::max));
    let deviation = ((high - low) / 100.0).max(f64::MIN_POSITIVE);
    let (low, high) = (low - 5.0 * deviation, high + 5.0 * deviation);
    let x = |i: usize| low + (high - low) * i as f64 / 800.0;
    let points: Vec<(f64, f64)> = (0..=800).map(|i| (x(i), density.at(x(i), deviation))).collect();
    let top = points.iter().map(|point| point.1).fold(0.0, f64::max);
    let bottom = top * 1e-7;
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    let curve = || -> Drawn<'_> {
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption("density of the Hessian's eigenvalues", ("sans-serif", 20))
            .margin(14)
            .x_label_area_size(36)
            .y_label_area_size(70)
            .build_cartesian_2d(low..high, (bottom..top * 2.0).log_scale())?;
        let label = |density: &f64| format!("{density:.0e}");
        chart.configure_mesh().light_line_style(WHITE).x_desc("eigenvalue").y_label_formatter(&label).draw()?;
        let shown = points.iter().map(|(x, y)| (*x, y.max(bottom)));
        chart.draw_series(LineSeries::new(shown, COLORS[4].stroke_width(2)))?;
        Ok(())
    };
    curve().map_err(|error| failed(&error))?;
    root.present().map_err(|error| failed(&error))
}
