//! Tables on the terminal.

use eckart::device::gpu::Counters;
use eckart::train::{MemoryUse, Planned, Row, Size};

/// Bytes by tag, a column for each name.
pub fn memory(columns: &[(&str, MemoryUse)]) -> String {
    let head: String = columns.iter().map(|(name, _)| format!("{name:>14}")).collect();
    let mut lines = vec![format!("{:12}{head}", "memory")];
    for (i, (tag, _)) in MemoryUse::default().rows().iter().enumerate() {
        let cells: String =
            columns.iter().map(|(_, bytes)| format!("{:>14}", Size(bytes.rows()[i].1).to_string())).collect();
        lines.push(format!("{tag:12}{cells}"));
    }
    lines.join("\n")
}

/// Plans of methods, one a line; with a limit, whether each fits.
pub fn methods(all: &[Planned], limit: Option<Size>) -> String {
    let names: String = MemoryUse::default().rows().iter().map(|(name, _)| format!("{name:>13}")).collect();
    let mut lines = vec![format!("{:22}{:>5}{names}{}", "method", "rank", limit.map_or("", |_| "  fits"))];
    for planned in all {
        let rank = planned.rank.map_or_else(|| "-".into(), |rank| rank.to_string());
        let rest = match &planned.plan {
            Ok(plan) => {
                let rows = plan.peak_bytes.rows();
                let cells: String = rows.iter().map(|(_, bytes)| format!("{:>13}", Size(*bytes).to_string())).collect();
                let fits = |limit: Size| if plan.reserved_bytes <= limit.0 { "   yes" } else { "    no" };
                cells + limit.map_or("", fits)
            }
            Err(problem) => format!("  {problem}"),
        };
        lines.push(format!("{:22}{rank:>5}{rest}", planned.method));
    }
    lines.join("\n")
}

/// Kernels by op and stage, longest first.
pub fn profile(rows: &[Row], wall: f64) -> String {
    let mut lines = vec![format!("{:24}{:10}{:>10}{:>12}{:>8}", "kernel", "stage", "calls", "ms", "share")];
    for (op, stage, calls, time) in rows {
        let seconds = time.as_secs_f64();
        let share = 100.0 * seconds / wall;
        lines.push(format!("{op:24}{:10}{calls:>10}{:>12.1}{share:>7.1}%", stage.name(), 1e3 * seconds));
    }
    let rest = wall - rows.iter().map(|row| row.3.as_secs_f64()).sum::<f64>();
    lines.push(format!("{:44}{:>12.1}{:>7.1}%", "all else", 1e3 * rest, 100.0 * rest / wall));
    lines.join("\n")
}

/// What the host did for a GPU.
pub fn counters(counters: &Counters) -> String {
    let rows = [
        ("kernels", counters.dispatches),
        ("submissions", counters.submissions),
        ("bind groups", counters.bind_groups),
        ("pipelines", counters.pipelines),
        ("buffers", counters.buffers),
        ("bytes allocated", counters.bytes_allocated),
        ("staging writes", counters.staging_writes),
        ("reads", counters.reads),
        ("ops on the host", counters.host_ops),
        ("host ns per kernel", counters.per_dispatch().as_nanos() as u64),
    ];
    rows.map(|(name, count)| format!("{name:20}{count:>16}")).join("\n")
}
