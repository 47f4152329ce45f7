//! Curves of a run, as SVG.

use eckart::train::{MemoryUse, Metrics, Planned};
use eckart::{Error, Result};
use plotters::prelude::*;
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
const COLORS: [RGBColor; 12] = [
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
];

/// Optimizer bytes and the whole peak over rank, side by side, both axes logarithmic. A method without a rank is a level
/// line.
pub fn memory_by_rank(path: &Path, all: &[Planned]) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| Error::File {
        path: path.into(),
        source: std::io::Error::other(error.to_string()),
    };
    let root = SVGBackend::new(path, (2 * SIZE.0 * 3 / 4, SIZE.1)).into_drawing_area();
    root.fill(&WHITE).map_err(|e| failed(&e))?;
    let panels = root.split_evenly((1, 2));
    let parts: [(&str, fn(&MemoryUse) -> u64); 2] =
        [("optimizer state (MiB)", |bytes| bytes.optimizer), ("peak (MiB)", |bytes| bytes.total)];
    for (panel, (title, part)) in panels.iter().zip(parts) {
        by_rank(panel, title, all, part).map_err(|e| failed(&e))?;
    }
    root.present().map_err(|e| failed(&e))
}

type Panel<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn by_rank(
    panel: &Panel<'_>,
    title: &str,
    all: &[Planned],
    part: fn(&MemoryUse) -> u64,
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let ranks = || all.iter().filter_map(|planned| planned.rank).map(|rank| rank as f64);
    let (left, right) = ranks().fold((f64::INFINITY, 1.0), |(low, high), r| (low.min(r), r.max(high)));
    let value = |planned: &Planned| planned.plan.as_ref().ok().map(|plan| part(&plan.peak_bytes) as f64 / MIB);
    let ends = |(low, high): (f64, f64), x: f64| (low.min(x), x.max(high));
    let (bottom, top) = all.iter().filter_map(value).filter(|&x| x > 0.0).fold((f64::INFINITY, 0.0), ends);
    if left > right || bottom > top {
        return Ok(());
    }
    let mut chart = ChartBuilder::on(panel)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d((left..right.max(left * 2.0)).log_scale(), (bottom / 1.3..top * 1.3).log_scale())?;
    let (rank, size) = (|r: &f64| format!("{r:.0}"), |x: &f64| format!("{x:.3}"));
    chart.configure_mesh().x_desc("rank").x_label_formatter(&rank).y_label_formatter(&size).draw()?;
    let mut names: Vec<&str> = all.iter().map(|planned| &*planned.method).collect();
    names.dedup();
    for (name, color) in names.iter().zip(COLORS.iter().cycle()) {
        let of = all.iter().filter(|planned| planned.method == *name);
        let mut points: Vec<(f64, f64)> =
            of.filter_map(|planned| Some((planned.rank.map_or(left, |rank| rank as f64), value(planned)?))).collect();
        if let [(_, level)] = points[..] {
            points.push((right, level));
        }
        let style = color.stroke_width(2);
        let drawn = chart.draw_series(LineSeries::new(points, style))?;
        drawn.label(*name).legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    let legend = &mut chart.configure_series_labels();
    legend.position(SeriesLabelPosition::UpperLeft).background_style(WHITE.mix(0.8)).draw()?;
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
    }
    let legend = &mut chart.configure_series_labels();
    legend.background_style(WHITE.mix(0.8)).border_style(RGBColor(200, 200, 200)).draw().map_err(|e| failed(&e))?;
    root.present().map_err(|e| failed(&e))
}
