//! The ratios of processor time as a picture, `docs/performance.svg`.

use std::fs;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::repo;

use super::measure::Setting;
use super::report::Figure;

const FILE: &str = "docs/performance.svg";

/// Pixels of the picture: its width, and the height of a request's bars.
const WIDTH: u32 = 900;
const ROW: u32 = 36;

/// Where the axis ends: what takes longer than this against a peer reaches to the edge.
const RATIO_MAX: f64 = 1.4;

/// A peer and the colour of its bars.
const PEERS: [(&str, RGBColor); 2] = [("C", RGBColor(31, 119, 180)), ("R", RGBColor(255, 127, 14))];

/// One request: ours against each of [`PEERS`], where both were measured.
struct Row {
    name: &'static str,
    ratios: [Option<f64>; 2],
}

/// Draws one setting's processor times, ours divided by each peer's.
pub(super) fn write(figures: &[Figure], setting: Setting, title: &str) -> Result<()> {
    let file = repo::root().join(FILE);
    fs::write(&file, picture(&rows(figures, setting), title)?)?;
    println!("written: {}", file.display());
    Ok(())
}

fn picture(rows: &[Row], title: &str) -> Result<String> {
    let mut picture = String::new();
    {
        let height = ROW * u32::try_from(rows.len())? + 86;
        let area = SVGBackend::with_string(&mut picture, (WIDTH, height)).into_drawing_area();
        draw(&area, rows, title).map_err(|error| anyhow!("{FILE}: {error}"))?;
    }
    Ok(picture)
}

fn rows(figures: &[Figure], setting: Setting) -> Vec<Row> {
    let find = |scenario: &str, label: &str| {
        figures.iter().find(|figure| {
            figure.setting == setting && figure.scenario == scenario && figure.label == label
        })
    };
    let ours = figures
        .iter()
        .filter(|figure| figure.setting == setting && figure.label == "ours");
    ours.map(|ours| Row {
        name: ours.scenario,
        ratios: PEERS.map(|(label, _)| {
            let theirs = find(ours.scenario, label)?;
            #[expect(clippy::cast_precision_loss, reason = "a picture")]
            let ratio = ours.cpu_ns as f64 / theirs.cpu_ns as f64;
            Some(ratio)
        }),
    })
    .collect()
}

fn draw<'a>(
    area: &DrawingArea<SVGBackend<'a>, Shift>,
    rows: &[Row],
    title: &str,
) -> Result<(), Box<dyn std::error::Error + 'a>> {
    area.fill(&WHITE)?;
    let count = i32::try_from(rows.len())?;
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 16))
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(330)
        .build_cartesian_2d(0.0..RATIO_MAX, (0..count - 1).into_segmented())?;
    let edge = |row| match row {
        row if row < count => SegmentValue::Exact(row),
        _ => SegmentValue::Last,
    };
    // Rows are read from the top.
    let name = |at: &SegmentValue<i32>| match at {
        SegmentValue::CenterOf(row) => usize::try_from(count - 1 - row)
            .ok()
            .and_then(|row| rows.get(row))
            .map_or(String::new(), |row| row.name.to_owned()),
        SegmentValue::Exact(_) | SegmentValue::Last => String::new(),
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(rows.len())
        .y_label_formatter(&name)
        .x_desc("processor time of ours against the other's; less is better")
        .label_style(("sans-serif", 12))
        .draw()?;
    for (peer, (label, colour)) in PEERS.into_iter().enumerate() {
        let bars = rows.iter().enumerate().filter_map(|(row, shown)| {
            let ratio = shown.ratios[peer]?.min(RATIO_MAX);
            let at = count - 1 - i32::try_from(row).ok()?;
            let (low, high) = (SegmentValue::Exact(at), edge(at + 1));
            let mut bar = Rectangle::new([(0.0, low), (ratio, high)], colour.filled());
            // Half of the row for each, with some space around both.
            let (above, below) = if peer == 0 {
                (4, ROW / 2)
            } else {
                (ROW / 2, 4)
            };
            bar.set_margin(above, below, 0, 0);
            Some(bar)
        });
        chart
            .draw_series(bars)?
            .label(format!("against {label}"))
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 10, y + 5)], colour.filled()));
    }
    let equal = [(1.0, SegmentValue::Exact(0)), (1.0, edge(count))];
    chart.draw_series(LineSeries::new(equal, BLACK.stroke_width(1)))?;
    chart
        .configure_series_labels()
        .background_style(WHITE)
        .border_style(BLACK)
        .label_font(("sans-serif", 12))
        .draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_and_both_peers_are_in_the_picture() {
        let row = |name, ratios| Row { name, ratios };
        let rows = [
            row("GETATTR", [Some(0.5), Some(0.2)]),
            row("UNLINK", [None, Some(7.0)]),
        ];
        let picture = picture(&rows, "title of it").unwrap();
        for text in ["GETATTR", "UNLINK", "title of it", "against C", "against R"] {
            assert!(picture.contains(text), "{text}: {picture}");
        }
        // Two bars against R and one against C, beside the two of the legend.
        for (_, RGBColor(red, green, blue)) in PEERS {
            let colour = format!("#{red:02X}{green:02X}{blue:02X}");
            let bars = picture.matches(&colour).count();
            assert_eq!(bars, if colour == "#FF7F0E" { 3 } else { 2 }, "{picture}");
        }
    }
}
