//! The figures as tables for people and as JSON for programs.

use std::fmt::Write;

use anyhow::Result;
use serde_json::{Value, json};

use super::count::Calls;
use virtiofs_testkit::frontend::Waiting;

use super::measure::{DIRECT, Place, SETTINGS, Setting};
use super::processes::Usage;
use super::queues::{self, QueueRow};
use super::stores::{self, StoreRow};
use super::workloads;

/// One daemon of the run.
pub(super) struct DaemonRow {
    pub(super) label: &'static str,
    pub(super) what: &'static str,
    pub(super) private_kib: u64,
}

/// What one daemon did when there was nothing to do.
pub(super) struct IdleRow {
    pub(super) label: &'static str,
    pub(super) secs: u64,
    pub(super) used: Usage,
}

/// One request on one daemon in one setting.
pub(super) struct Figure {
    pub(super) scenario: &'static str,
    pub(super) label: &'static str,
    pub(super) setting: Setting,
    pub(super) median_ns: u64,
    pub(super) p99_ns: u64,
    pub(super) cpu_ns: u64,
    pub(super) calls: Option<Calls>,
}

/// A whole run.
pub(super) struct Results {
    /// Commit, kernel, processors.
    pub(super) circumstances: String,
    pub(super) daemons: Vec<DaemonRow>,
    pub(super) idle: Vec<IdleRow>,
    pub(super) figures: Vec<Figure>,
    /// System calls that ours may make, by request.
    pub(super) budgets: Vec<(&'static str, f64)>,
    pub(super) queues: Vec<QueueRow>,
    pub(super) stores: Vec<StoreRow>,
    pub(super) workloads: Vec<workloads::Table>,
}

impl Results {
    /// Tables in Markdown.
    pub(super) fn markdown(&self) -> String {
        let mut page = format!("{}.\n\n### Daemons\n\n", self.circumstances);
        for DaemonRow {
            label,
            what,
            private_kib,
        } in &self.daemons
        {
            let _ = writeln!(
                page,
                "- **{label}**: {what}; {private_kib} KiB of its own at the end"
            );
        }
        let _ = writeln!(
            page,
            "- **{DIRECT}**: the same system calls, made by the benchmark itself"
        );
        page.push_str("\n### Idle\n\n| daemon | seconds | processor time (us) | switches |\n|---|---:|---:|---:|\n");
        for IdleRow { label, secs, used } in &self.idle {
            let _ = writeln!(
                page,
                "| {label} | {secs} | {} | {} |",
                micros(used.cpu_ns),
                used.switches
            );
        }
        page.push_str("\n### System calls per request\n\nIn brackets: kicks read and calls written, then waits; under strace a daemon is slow and waits less than it does otherwise.\n\n");
        self.table(
            &mut page,
            SETTINGS[0],
            |scenario| self.with_budget(scenario),
            |figure, _| Some(shown_calls(figure.calls.as_ref()?)),
        );
        let measured = |setting: &&Setting| self.of(**setting).next().is_some();
        for setting in SETTINGS.iter().filter(measured) {
            let _ = write!(
                page,
                "\n### {}\n\nMicroseconds per request: processor time of the daemon; ",
                title(*setting)
            );
            page.push_str(
                "time, median and 99th percentile. In brackets: ours against this one.\n\n",
            );
            self.table(&mut page, *setting, str::to_owned, |figure, ours| {
                Some(shown_times(figure, ours))
            });
        }
        if !self.queues.is_empty() {
            page.push('\n');
            page.push_str(&queues::markdown(&self.queues));
        }
        if !self.stores.is_empty() {
            page.push('\n');
            page.push_str(&stores::markdown(&self.stores));
        }
        for table in &self.workloads {
            page.push('\n');
            page.push_str(&table.markdown());
        }
        page
    }

    /// A request and what ours may cost.
    fn with_budget(&self, scenario: &str) -> String {
        match self.budgets.iter().find(|(name, _)| *name == scenario) {
            Some((_, calls)) => format!("{scenario}; ours at most {calls}"),
            None => scenario.to_owned(),
        }
    }

    /// One table: a row per request, a column per daemon.
    fn table(
        &self,
        page: &mut String,
        setting: Setting,
        row_title: impl Fn(&str) -> String,
        cell: impl Fn(&Figure, Option<&Figure>) -> Option<String>,
    ) {
        let shown = |label: &&str| {
            self.of(setting)
                .any(|figure| figure.label == *label && cell(figure, None).is_some())
        };
        let daemons = self.daemons.iter().map(|daemon| daemon.label);
        let labels: Vec<&str> = daemons.chain([DIRECT]).filter(shown).collect();
        let _ = writeln!(page, "| request | {} |", labels.join(" | "));
        let _ = writeln!(page, "|---|{}", "---:|".repeat(labels.len()));
        let mut scenarios: Vec<&str> = self.of(setting).map(|figure| figure.scenario).collect();
        scenarios.dedup();
        for scenario in scenarios {
            let find = |label: &str| {
                self.of(setting)
                    .find(|figure| figure.scenario == scenario && figure.label == label)
            };
            let cells: Vec<String> = labels
                .iter()
                .map(|label| find(label).and_then(|figure| cell(figure, find("ours"))))
                .map(|cell| cell.unwrap_or_else(|| "-".to_owned()))
                .collect();
            let _ = writeln!(page, "| {} | {} |", row_title(scenario), cells.join(" | "));
        }
    }

    fn of(&self, setting: Setting) -> impl Iterator<Item = &Figure> {
        self.figures
            .iter()
            .filter(move |figure| figure.setting == setting)
    }

    /// Everything, for programs.
    pub(super) fn json(&self) -> Result<String> {
        let daemons = self.daemons.iter().map(|daemon| {
            json!({"label": daemon.label, "what": daemon.what, "private_kib": daemon.private_kib})
        });
        let idle = self.idle.iter().map(|row| {
            json!({"label": row.label, "secs": row.secs, "cpu_ns": row.used.cpu_ns, "switches": row.used.switches})
        });
        let figures = self.figures.iter().map(figure_json);
        let stores = self.stores.iter().map(|row| {
            json!({"label": row.label, "reads_per_sec": row.alone, "with_32_in_flight": row.together,
                "on_4_queues": row.queues, "cached_getattr_ns": u64::try_from(row.cached.as_nanos()).unwrap_or(u64::MAX)})
        });
        let all = json!({
            "circumstances": self.circumstances,
            "daemons": daemons.collect::<Value>(),
            "idle": idle.collect::<Value>(),
            "figures": figures.collect::<Value>(),
            "queues": queues::json(&self.queues),
            "slow_store": stores.collect::<Value>(),
            "workloads": self.workloads.iter().map(workloads::Table::json).collect::<Value>(),
        });
        Ok(serde_json::to_string_pretty(&all)? + "\n")
    }
}

fn figure_json(figure: &Figure) -> Value {
    let calls = figure.calls.as_ref().map(|calls| {
        let by_name: serde_json::Map<String, Value> = calls
            .by_name
            .iter()
            .map(|(name, count)| (name.clone(), json!(count)))
            .collect();
        json!({
            "served": calls.served, "notifications": calls.notifications,
            "waits": calls.waits, "by_name": by_name,
        })
    });
    json!({
        "request": figure.scenario,
        "daemon": figure.label,
        "in_flight": figure.setting.depth,
        "same_core": figure.setting.place == Place::SameCore,
        "guest_sleeps": figure.setting.guest == Waiting::Sleep,
        "median_ns": figure.median_ns,
        "p99_ns": figure.p99_ns,
        "cpu_ns": figure.cpu_ns,
        "system_calls": calls,
    })
}

/// What a setting is called.
pub(super) fn title(setting: Setting) -> String {
    let place = match setting.place {
        Place::SameCore => "daemon on the guest's core",
        Place::OtherCore => "daemon on another core",
    };
    let asleep = if setting.guest == Waiting::Spin {
        ", the guest looks for replies without sleeping"
    } else if setting.depth == 1 {
        ", both sleep between requests"
    } else {
        ""
    };
    format!("{} in flight, {place}{asleep}", setting.depth)
}

fn shown_calls(calls: &Calls) -> String {
    format!(
        "{} ({} + {})",
        short(calls.served),
        short(calls.notifications),
        short(calls.waits)
    )
}

/// A count that is nearly always whole, without needless digits.
fn short(count: f64) -> String {
    let text = format!("{count:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn shown_times(figure: &Figure, ours: Option<&Figure>) -> String {
    let ratio = ours
        .filter(|ours| ours.label != figure.label)
        .map_or(String::new(), |ours| {
            format!(
                " ({} / {})",
                ratio(ours.cpu_ns, figure.cpu_ns),
                ratio(ours.median_ns, figure.median_ns)
            )
        });
    let [cpu, median, p99] = [figure.cpu_ns, figure.median_ns, figure.p99_ns].map(micros);
    format!("{cpu}; {median}, {p99}{ratio}")
}

/// `of / to` with two digits.
fn ratio(of: u64, to: u64) -> String {
    match (of * 100).checked_div(to) {
        Some(percent) => format!("{}.{:02}", percent / 100, percent % 100),
        None => "-".to_owned(),
    }
}

/// Nanoseconds as microseconds with one digit.
fn micros(ns: u64) -> String {
    let tenths = (ns + 50) / 100;
    format!("{}.{}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(label: &'static str, median_ns: u64, cpu_ns: u64) -> Figure {
        let calls = Calls {
            served: 3.0,
            notifications: 2.0,
            waits: 1.25,
            by_name: vec![],
        };
        let (scenario, setting) = ("GETATTR", SETTINGS[0]);
        Figure {
            scenario,
            label,
            setting,
            median_ns,
            p99_ns: 9000,
            cpu_ns,
            calls: Some(calls),
        }
    }

    #[test]
    fn the_table_sets_ours_against_each_peer() {
        let daemon = |label| DaemonRow {
            label,
            what: "",
            private_kib: 1,
        };
        let results = Results {
            circumstances: "commit abc".to_owned(),
            daemons: vec![daemon("ours"), daemon("C")],
            idle: vec![],
            figures: vec![figure("ours", 1550, 1000), figure("C", 2000, 3000)],
            budgets: vec![("GETATTR", 1.0)],
            queues: vec![],
            stores: vec![],
            workloads: vec![],
        };
        let page = results.markdown();
        assert!(
            page.contains("| GETATTR; ours at most 1 | 3 (2 + 1.25) | 3 (2 + 1.25) |"),
            "{page}"
        );
        assert!(
            page.contains("| GETATTR | 1.0; 1.6, 9.0 | 3.0; 2.0, 9.0 (0.33 / 0.77) |"),
            "{page}"
        );
        let json: Value = serde_json::from_str(&results.json().unwrap()).unwrap();
        assert_eq!(json["figures"][1]["median_ns"], 2000);
    }

    #[test]
    fn a_ratio_to_nothing_is_no_number() {
        assert_eq!(ratio(1, 0), "-");
        assert_eq!(ratio(5, 2), "2.50");
    }
}
