//! The ladders as a picture: SVG that is legible on light and on dark pages.

use std::fmt::Write as _;

use super::loads::{
    ALL_TALK, LISTENERS, PASSED_THROUGH, ROOMS_OF_3, ROOMS_OF_10, ROOMS_OF_100, SIZE, TALKERS,
};
use super::{Cost, Record};

const WIDTH: f64 = 920.0;
const HEIGHT: f64 = 434.0;
/// Where the panels lie, from the top.
const TOP: f64 = 74.0;
const BOTTOM: f64 = 362.0;

/// One pair of axes with its lines.
struct Panel {
    title: &'static str,
    axis: &'static str,
    left: f64,
    right: f64,
    /// Ends of the axis, as powers of ten.
    decades: (i32, i32),
    lines: Vec<Line>,
}

struct Line {
    name: &'static str,
    /// Which of the colours and marks of the style sheet.
    style: usize,
    points: Vec<(f64, f64)>,
}

/// Draws a record.
pub(super) fn draw(record: &Record<'_>) -> String {
    let costs = &record.results.costs;
    let by_legs = |cost: &Cost| f64::from(cost.load.legs());
    let by_talkers = |cost: &Cost| f64::from(cost.load.talkers);
    let line = |name, ladder, style, x: fn(&Cost) -> f64| Line {
        name,
        style,
        points: costs
            .iter()
            .filter(|cost| cost.load.ladder == ladder)
            .map(|cost| (x(cost), cost.total_ns))
            .collect(),
    };
    let panels = [
        Panel {
            title: "by the number of legs",
            axis: "legs on one core",
            left: 62.0,
            right: 440.0,
            decades: (1, 4),
            lines: vec![
                line("rooms of 100, all talk", ROOMS_OF_100, 0, by_legs),
                line("rooms of 10, all talk", ROOMS_OF_10, 1, by_legs),
                line("rooms of 3, all talk", ROOMS_OF_3, 2, by_legs),
                line("one room, 4 talkers", SIZE, 3, by_legs),
                line("one room, 3 talkers", LISTENERS, 4, by_legs),
                line("one room, 1 talker", PASSED_THROUGH, 5, by_legs),
            ],
        },
        Panel {
            title: "by the number of talkers in one room",
            axis: "talkers",
            left: 650.0,
            right: 805.0,
            decades: (0, 3),
            lines: vec![
                line("all talk", ALL_TALK, 0, by_talkers),
                line("of 100 legs", TALKERS, 3, by_talkers),
            ],
        },
    ];
    let dearest = costs.iter().map(|cost| cost.total_ns).fold(0.0, f64::max);
    let step = if dearest > 500.0 { 200.0 } else { 100.0 };
    let top = (dearest / step).ceil().max(1.0) * step;
    let mut svg = head(record);
    for panel in &panels {
        panel.draw(&mut svg, top, step);
    }
    svg.push_str("</svg>\n");
    svg
}

/// Title, style sheet and caption.
fn head(record: &Record<'_>) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n\
         <title>Cost of a leg in the engine, nanoseconds per 20 ms</title>\n\
         <style>{}</style>\n\
         <rect class=\"page\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>\n\
         <text class=\"title\" x=\"16\" y=\"26\">What a leg costs in the engine: ns per leg and 20 ms, packet I/O left \
         out</text>\n\
         <text x=\"16\" y=\"{}\">{}: {} ticks a load, medians. {}, {} CPUs, Linux {}, {}, {}</text>\n",
        style(),
        HEIGHT - 12.0,
        record.results.codec,
        record.results.ticks,
        escaped(&record.cpu),
        record.cpus,
        escaped(&record.kernel),
        record.date,
        record.revision,
    )
}

impl Panel {
    fn draw(&self, svg: &mut String, top: f64, step: f64) {
        self.axes(svg, top, step);
        let mut labels = Vec::new();
        for line in &self.lines {
            let places: Vec<_> = line
                .points
                .iter()
                .map(|&(x, y)| (self.x(x), BOTTOM - y / top * (BOTTOM - TOP)))
                .collect();
            let text: Vec<_> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let style = line.style;
            let _ = writeln!(
                svg,
                "<polyline class=\"l{style}\" points=\"{}\"/>",
                text.join(" ")
            );
            for ((x, y), (legs, ns)) in places.iter().zip(&line.points) {
                let name = line.name;
                let _ = writeln!(
                    svg,
                    "<circle class=\"m{style}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"><title>{name}: {ns:.0} ns at \
                     {legs:.0}</title></circle>"
                );
            }
            labels.extend(places.last().map(|&(x, y)| (line, x, y)));
        }
        self.label(svg, labels);
    }

    /// Place of a value on the logarithmic axis.
    fn x(&self, value: f64) -> f64 {
        let (from, to) = (f64::from(self.decades.0), f64::from(self.decades.1));
        self.left + (value.log10() - from) / (to - from) * (self.right - self.left)
    }

    fn axes(&self, svg: &mut String, top: f64, step: f64) {
        let (left, right, middle) = (self.left, self.right, (self.left + self.right) / 2.0);
        let mut ns = 0.0;
        while ns <= top {
            let y = BOTTOM - ns / top * (BOTTOM - TOP);
            let _ = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{left} {y:.1}H{right}\"/><text class=\"end\" x=\"{}\" y=\"{:.1}\">{ns}</text>",
                left - 8.0,
                y + 4.0
            );
            ns += step;
        }
        for decade in self.decades.0..=self.decades.1 {
            let value = 10_f64.powi(decade);
            let _ = writeln!(
                svg,
                "<text class=\"middle\" x=\"{:.1}\" y=\"{}\">{}</text>",
                self.x(value),
                BOTTOM + 16.0,
                POWERS.get(usize::try_from(decade).unwrap_or(0)).unwrap_or(&"")
            );
        }
        let _ = writeln!(
            svg,
            "<text class=\"middle\" x=\"{middle}\" y=\"{}\">{}</text>\n\
             <text x=\"{}\" y=\"{}\">ns, {}</text>",
            BOTTOM + 32.0,
            self.axis,
            left - 30.0,
            TOP - 18.0,
            self.title
        );
    }

    /// Names the lines at their ends, in their order, far enough from each other to be read.
    fn label(&self, svg: &mut String, mut labels: Vec<(&Line, f64, f64)>) {
        labels.sort_by(|one, other| one.2.total_cmp(&other.2));
        let mut above = f64::NEG_INFINITY;
        let places: Vec<f64> = labels
            .iter()
            .map(|&(_, _, y)| {
                above = y.max(above + LABEL_HEIGHT);
                above
            })
            .collect();
        // Whatever was pushed below the axis pushes the others up again.
        let mut below = BOTTOM + LABEL_HEIGHT / 2.0;
        let lifted: Vec<f64> = places
            .iter()
            .rev()
            .map(|&y| {
                below = y.min(below - LABEL_HEIGHT);
                below
            })
            .collect();
        for (&(line, x, from), y) in labels.iter().zip(lifted.into_iter().rev()) {
            let _ = writeln!(
                svg,
                "<path class=\"lead\" d=\"M{:.1} {from:.1}L{:.1} {y:.1}\"/><circle class=\"m{style}\" cx=\"{:.1}\" \
                 cy=\"{y:.1}\" r=\"3.5\"/><text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                x + 6.0,
                self.right + 14.0,
                self.right + 20.0,
                self.right + 28.0,
                y + 4.0,
                line.name,
                style = line.style,
            );
        }
    }
}

const LABEL_HEIGHT: f64 = 16.0;
/// Of ten, as the axes name them.
const POWERS: [&str; 5] = ["1", "10", "100", "1,000", "10,000"];

/// Colours of a page: ground, title, text, grid, then the lines'.
type Palette = [&'static str; 10];

const LIGHT: Palette = [
    "#fff", "#24292f", "#57606a", "#d8dee4", "#0a58ca", "#b35900", "#1a7f37", "#8250df", "#bf3989", "#57606a",
];
const DARK: Palette = [
    "#0d1117", "#e6edf3", "#9198a1", "#30363d", "#58a6ff", "#f0a04b", "#56d364", "#bc8cff", "#ff7bb5",
    "#9198a1",
];

/// Rooms where all talk have whole lines and full marks, rooms with few talkers dashes and hollow marks: colour alone
/// tells nothing.
const SHAPES: &str = "text{font:12px system-ui,sans-serif}.title{font-size:15px;font-weight:600}\
.middle{text-anchor:middle}.end{text-anchor:end}.lead,polyline{fill:none}polyline{stroke-width:2}\
circle{stroke-width:1.5}.l3{stroke-dasharray:7 3}.l4{stroke-dasharray:4 3}.l5{stroke-dasharray:2 3}";

fn style() -> String {
    let colours = |[page, title, text, grid, lines @ ..]: &Palette| {
        let mut style = format!(
            ".page,.m3,.m4,.m5{{fill:{page}}}text{{fill:{text}}}.title{{fill:{title}}}.grid,.lead{{stroke:{grid}}}"
        );
        for (number, line) in lines.iter().enumerate() {
            let _ = write!(style, ".l{number},.m{number}{{stroke:{line}}}");
            if number < 3 {
                let _ = write!(style, ".m{number}{{fill:{line}}}");
            }
        }
        style
    };
    format!(
        "{SHAPES}{}@media(prefers-color-scheme:dark){{{}}}",
        colours(&LIGHT),
        colours(&DARK)
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ladder::{Results, loads};

    #[test]
    fn every_load_is_a_point_inside_the_picture_and_every_line_has_its_name_once() {
        let costs = loads::LOADS.iter().map(|&load| Cost {
            load,
            receive_ns: 40.0,
            tick_ns: 260.0,
            total_ns: 300.0,
            percent_per_1000_legs: 1.5,
            encodes_per_tick: 1.0,
            whole_p99_us: 1.0,
            whole_longest_us: 1.0,
        });
        let results = Results {
            codec: "pcmu",
            ticks: 10,
            costs: costs.collect(),
            parts: Vec::new(),
            gains: Vec::new(),
            promises: Vec::new(),
        };
        let record = Record {
            date: "2026-01-01".to_owned(),
            cpu: "one & <other>".to_owned(),
            cpus: 2,
            kernel: "6".to_owned(),
            revision: "r".to_owned(),
            results: &results,
        };
        let svg = draw(&record);
        assert_eq!(svg.matches("<title>").count(), 1 + loads::LOADS.len());
        assert!(svg.contains("one &amp; &lt;other>") && svg.ends_with("</svg>\n"));
        let places = svg
            .split("cy=\"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next());
        let mut places: Vec<f64> = places.filter_map(|place| place.parse().ok()).collect();
        assert_eq!(
            places.len(),
            loads::LOADS.len() + 8,
            "points, and a mark for each name"
        );
        assert!(places.iter().all(|place| (TOP..=BOTTOM + 1.0).contains(place)));
        // All lines end at one height: their names must not.
        places.sort_by(f64::total_cmp);
        places.dedup();
        assert!(places.len() >= 6, "{places:?}");
    }
}
