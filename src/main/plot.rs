//! Curves of a run, as SVG.

use eckart::train::{MemoryUse, Metrics};
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
