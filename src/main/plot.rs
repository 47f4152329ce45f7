//! Curves of a run, as SVG.

mod ranks;

pub use ranks::{density, ranks};

use eckart::train::{MemoryUse, Metrics, Planned};
use eckart::{Error, Result};
use plotters::prelude::*;
use std::collections::BTreeSet;
use std::path::Path;

const SIZE: (u32, u32) = (900, 540);
const MIB: f64 = 1_048_576.0;

/// A named curve over steps.
struct Curve {
    name: &'static str,
    color: RGBColor,
    stroke: u32,
    points: Vec<(f64, f64)>,
}

/// Training and validation loss over steps.
pub fn loss(path: &Path, history: &[Metrics]) -> Result<()> {
    let points = |value: fn(&Metrics) -> Option<f64>| {
        history.iter().filter_map(|line| Some((line.step as f64, value(line)?))).collect()
    };
    let curves = [
        Curve { name: "training", color: RGBColor(70, 120, 200), stroke: 2, points: points(|line| line.loss) },
        Curve { name: "validation", color: RGBColor(210, 90, 50), stroke: 2, points: points(|line| line.val_loss) },
    ];
    draw(path, "loss (nats per token)", &curves)
}

/// Bytes by tag at the peak of each interval, and the total beside the planned one.
pub fn memory(path: &Path, history: &[Metrics], planned: MemoryUse) -> Result<()> {
    let points = |value: &dyn Fn(&Metrics) -> u64| {
        history.iter().map(|line| (line.step as f64, value(line) as f64 / MIB)).collect()
    };
    let tag = |i: usize, color| Curve {
        name: MemoryUse::default().rows()[i].0,
        color,
        stroke: 2,
        points: points(&|line| line.peak_bytes.rows()[i].1),
    };
    let curves = [
        Curve { name: "planned total", color: RGBColor(200, 200, 200), stroke: 7, points: points(&|_| planned.total) },
        tag(5, RGBColor(30, 30, 30)),
        tag(0, RGBColor(70, 120, 200)),
        tag(1, RGBColor(210, 90, 50)),
        tag(2, RGBColor(60, 150, 90)),
        tag(3, RGBColor(150, 90, 180)),
        tag(4, RGBColor(190, 160, 40)),
    ];
    draw(path, "memory at the peak (MiB)", &curves)
}

/// Colours of methods, one after the other.
const COLORS: [RGBColor; 13] = [
    RGBColor(30, 30, 30),
    RGBColor(130, 130, 130),
    RGBColor(190, 160, 40),
    RGBColor(120, 90, 30),
    RGBColor(70, 120, 200),
    RGBColor(60, 150, 90),
    RGBColor(210, 90, 50),
    RGBColor(230, 150, 120),
    RGBColor(150, 90, 180),
    RGBColor(30, 160, 170),
    RGBColor(200, 80, 140),
    RGBColor(90, 60, 120),
    RGBColor(120, 200, 230),
];

/// Optimizer bytes, on a logarithmic axis, and the whole peak over rank. A method without a rank is a level line.
pub fn memory_by_rank(path: &Path, all: &[Planned]) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| Error::File {
        path: path.into(),
        source: std::io::Error::other(error.to_string()),
    };
    let curves = by_rank(all, |bytes| bytes.optimizer);
    let ends = |(low, high): (f64, f64), x: f64| (low.min(x), x.max(high));
    let all_points = || curves.iter().flat_map(|(_, points)| points);
    let (bottom, top) = all_points().map(|point| point.1).filter(|&x| x > 0.0).fold((f64::INFINITY, 0.0), ends);
    let (left, right) = all_points().map(|point| point.0).fold((f64::INFINITY, 1.0), ends);
    if bottom > top {
        return Ok(());
    }
    let root = SVGBackend::new(path, (2 * SIZE.0 * 3 / 4, SIZE.1)).into_drawing_area();
    root.fill(&WHITE).map_err(|e| failed(&e))?;
    let (state, peak) = root.split_horizontally(SIZE.0 * 5 / 8);
    let logarithmic = (bottom / 1.5..top * 1.5).log_scale();
    panel(&state, "optimizer state (MiB)", &curves, left..right, logarithmic, false).map_err(|e| failed(&e))?;
    let curves = by_rank(all, |bytes| bytes.total);
    let top = curves.iter().flat_map(|(_, points)| points).map(|point| point.1).fold(0.0, f64::max);
    panel(&peak, "peak of the whole run (MiB)", &curves, left..right + 0.45 * (right - left), 0.0..top * 1.05, true)
        .map_err(|e| failed(&e))?;
    root.present().map_err(|e| failed(&e))
}

/// A method's name, and its MiB over the logarithm of its ranks.
type Named<'a> = (&'a str, Vec<(f64, f64)>);

fn by_rank(all: &[Planned], part: fn(&MemoryUse) -> u64) -> Vec<Named<'_>> {
    let ranks: BTreeSet<usize> = all.iter().filter_map(|planned| planned.rank).collect();
    let log = |rank: usize| (rank as f64).log2();
    let mut curves: Vec<Named<'_>> = Vec::new();
    for planned in all {
        let Ok(plan) = &planned.plan else { continue };
        let bytes = part(&plan.peak_bytes) as f64 / MIB;
        let points = match planned.rank {
            Some(rank) => vec![(log(rank), bytes)],
            None => ranks.iter().map(|&rank| (log(rank), bytes)).collect(),
        };
        match curves.last_mut().filter(|(name, _)| *name == planned.method) {
            Some((_, curve)) => curve.extend(points),
            None => curves.push((&planned.method, points)),
        }
    }
    curves.iter_mut().for_each(|(_, points)| points.sort_by(|a, b| a.0.total_cmp(&b.0)));
    curves
}

/// Whether a mark on an axis stands at a whole number.
fn is_whole(place: f64) -> bool {
    (place - place.round()).abs() < 1e-6
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// One chart, with the names of its curves or without.
fn panel<Y>(
    area: &Area<'_>,
    title: &str,
    curves: &[Named<'_>],
    x: std::ops::Range<f64>,
    y: Y,
    names: bool,
) -> std::result::Result<(), Box<dyn std::error::Error>>
where
    Y: plotters::coord::ranged1d::AsRangedCoord<Value = f64>,
    Y::CoordDescType: plotters::coord::ranged1d::ValueFormatter<f64>,
{
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(x, y)?;
    let whole = |log: &f64| if is_whole(*log) { format!("{:.0}", log.exp2()) } else { String::new() };
    let size = |x: &f64| format!("{x}");
    let mesh = &mut chart.configure_mesh();
    mesh.x_desc("rank").x_label_formatter(&whole).y_label_formatter(&size).light_line_style(WHITE).draw()?;
    for ((name, points), color) in curves.iter().zip(COLORS.iter().cycle()) {
        let style = color.stroke_width(2);
        let drawn = chart.draw_series(LineSeries::new(points.iter().copied(), style))?;
        drawn.label(*name).legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    if names {
        let legend = &mut chart.configure_series_labels();
        legend.position(SeriesLabelPosition::LowerRight).background_style(WHITE).border_style(WHITE).draw()?;
    }
    Ok(())
}

fn draw(path: &Path, title: &str, curves: &[Curve]) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| Error::File {
        path: path.into(),
        source: std::io::Error::other(error.to_string()),
    };
    let ends = |value: fn(&(f64, f64)) -> f64| {
        let all = curves.iter().flat_map(|curve| &curve.points).map(value).filter(|x| x.is_finite());
        all.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)))
    };
    let ((left, right), (_, top)) = (ends(|p| p.0), ends(|p| p.1));
    if left > right {
        return Ok(());
    }
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE).map_err(|e| failed(&e))?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 20))
        .margin(14)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(left.min(right - 1.0)..right, 0.0..top * 1.05)
        .map_err(|e| failed(&e))?;
    let whole = |step: &f64| format!("{step:.0}");
    let mesh = &mut chart.configure_mesh();
    mesh.x_desc("step").x_label_formatter(&whole).light_line_style(WHITE).draw().map_err(|e| failed(&e))?;
    for curve in curves {
        let style = curve.color.stroke_width(curve.stroke);
        let line = LineSeries::new(curve.points.iter().copied(), style);
        let drawn = chart.draw_series(line).map_err(|e| failed(&e))?;
        drawn.label(curve.name).legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        // One point makes no line.
        if let [point] = curve.points[..] {
            chart.draw_series([Circle::new(point, 3, style.filled())]).map_err(|e| failed(&e))?;
        }
    }
    let legend = &mut chart.configure_series_labels();
    legend.background_style(WHITE.mix(0.8)).border_style(RGBColor(200, 200, 200)).draw().map_err(|e| failed(&e))?;
    root.present().map_err(|e| failed(&e))
}
