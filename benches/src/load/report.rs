//! What a run came to, as text for a person or as one line of JSON for a script.
//!
//! The JSON is written by hand: it is flat but for two objects, its keys are a contract with the
//! benches, and every value is a number, a bare word or `null` (where there is nothing to tell: no
//! message, no server process). `bytes` and `mb_per_s` count what came back and was right, in one
//! direction, also of messages that were not complete at the end. `cpu_s` is the load's own.

use super::fault::Faults;
use super::options::Plan;
use super::run::Measured;
use super::tally::Tally;

const NS_PER_US: f64 = 1e3;
const BYTES_PER_MB: f64 = 1e6;

/// The quantiles of a report, in its order.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)];

/// The result of a run.
#[derive(Debug)]
pub struct Report {
    plan: Plan,
    measured: Measured,
    tally: Tally,
}

impl Report {
    /// The report on a plan that was run.
    #[must_use]
    pub fn new(plan: &Plan, measured: Measured, tally: Tally) -> Self {
        Self { plan: plan.clone(), measured, tally }
    }

    /// Whether every answer came, and was right.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.tally.faults.are_none()
    }

    /// What went wrong.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.tally.faults
    }

    /// One JSON object, without a line break.
    #[must_use]
    pub fn json(&self) -> String {
        let (plan, tally) = (&self.plan, &self.tally);
        let errors: Vec<String> = tally
            .faults
            .counts()
            .map(|(kind, count)| format!("\"{}\":{count}", kind.key()))
            .collect();
        let latency: Vec<String> = self
            .latency_us()
            .into_iter()
            .map(|(name, us)| format!("\"{name}\":{}", number(us)))
            .collect();
        let fields = [
            ("mode", format!("\"{}\"", plan.mode())),
            ("connections", plan.connections.to_string()),
            ("size", plan.message_bytes.to_string()),
            ("depth", plan.depth.to_string()),
            ("offered_per_s", number(plan.rate)),
            ("seconds", number(Some(self.seconds()))),
            ("completed", tally.completed.to_string()),
            ("bytes", tally.bytes.to_string()),
            ("errors", format!("{{{}}}", errors.join(","))),
            ("corrupted", tally.faults.corrupted.to_string()),
            ("rate_per_s", number(Some(self.rate_per_s()))),
            ("mb_per_s", number(Some(self.mb_per_s()))),
            ("latency_us", format!("{{{}}}", latency.join(","))),
            ("cpu_s", number(Some(self.measured.own_cpu.as_secs_f64()))),
            ("unanswered", self.measured.unanswered.to_string()),
            ("full_handshakes", tally.full.to_string()),
            ("resumed_handshakes", tally.resumed.to_string()),
            ("server_cpu_us_per_message", number(self.server_cpu_us_per_message())),
        ];
        let fields = fields.map(|(key, value)| format!("\"{key}\":{value}"));
        format!("{{{}}}", fields.join(","))
    }

    /// A few lines for a person, each ended by a line break.
    #[must_use]
    pub fn text(&self) -> String {
        let (plan, tally, measured) = (&self.plan, &self.tally, &self.measured);
        let unit = if plan.churn { "connections" } else { "messages" };
        let offered = plan.rate.map_or_else(String::new, |rate| format!(", {rate} {unit}/s due"));
        let head = format!(
            "{}: {} connections, {} B a message, depth {}, {:.2} s{offered}",
            plan.mode(),
            plan.connections,
            plan.message_bytes,
            plan.depth,
            self.seconds(),
        );
        let latency = self.latency_us().into_iter().map(|(name, us)| match us {
            Some(us) => format!("{name} {us:.1}"),
            None => format!("{name} -"),
        });
        let server = self.server_cpu_us_per_message();
        let server = server.map_or_else(String::new, |us| format!(", server {us:.3} us each"));
        let errors = tally.faults.counts().filter(|(_, count)| *count > 0);
        let errors: Vec<String> =
            errors.map(|(kind, count)| format!("{} {count}", kind.key())).collect();
        let errors = if errors.is_empty() { "none".to_owned() } else { errors.join(", ") };
        let rows = [
            (unit, format!("{}, {:.0}/s", tally.completed, self.rate_per_s())),
            ("bytes", format!("{}, {:.1} MB/s", tally.bytes, self.mb_per_s())),
            ("latency us", latency.collect::<Vec<_>>().join("  ").replace("p999", "p99.9")),
            ("CPU", format!("load {:.3} s{server}", measured.own_cpu.as_secs_f64())),
            ("unanswered", measured.unanswered.to_string()),
            ("errors", errors),
            ("corrupted", format!("{} bytes", tally.faults.corrupted)),
        ];
        let rows = rows.map(|(name, value)| format!("{name:<12} {value}\n"));
        let mut text = format!("{head}\n{}", rows.concat());
        if plan.tls.is_some() && plan.churn {
            let (full, resumed) = (tally.full, tally.resumed);
            text += &format!("{:<12} {full} full, {resumed} resumed\n", "handshakes");
        }
        text
    }

    fn seconds(&self) -> f64 {
        self.measured.time.as_secs_f64()
    }

    fn rate_per_s(&self) -> f64 {
        self.tally.completed as f64 / self.seconds()
    }

    fn mb_per_s(&self) -> f64 {
        self.tally.bytes as f64 / self.seconds() / BYTES_PER_MB
    }

    fn latency_us(&self) -> Vec<(&'static str, Option<f64>)> {
        let latency = &self.tally.latency_ns;
        let known = |ns: f64| (!latency.is_empty()).then_some(ns / NS_PER_US);
        let mut row: Vec<_> = QUANTILES
            .iter()
            .map(|(name, quantile)| (*name, known(latency.value_at_quantile(*quantile) as f64)))
            .collect();
        row.push(("max", known(latency.max() as f64)));
        row.push(("mean", known(latency.mean())));
        row
    }

    fn server_cpu_us_per_message(&self) -> Option<f64> {
        let cpu_us = self.measured.server_cpu?.as_secs_f64() * 1e6;
        (self.tally.completed > 0).then(|| cpu_us / self.tally.completed as f64)
    }
}

/// A JSON number; `null` for one that is not known, or not finite.
fn number(value: Option<f64>) -> String {
    match value {
        Some(value) if value.is_finite() => {
            let text = format!("{value:.3}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        _ => "null".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::fault::Fault;
    use super::*;

    fn report(latencies_us: &[u64]) -> Report {
        let line = "load 127.0.0.1:7 --connections 2 --size 100 --seconds 2 --depth 4";
        let plan = Plan::parse(line.split(' ').map(str::to_owned)).expect("it is complete");
        let mut tally = Tally::new();
        tally.record(true);
        for us in latencies_us {
            tally.receive(100);
            tally.complete(us * 1000);
        }
        let measured = Measured {
            time: Duration::from_secs(2),
            own_cpu: Duration::from_millis(1500),
            server_cpu: Some(Duration::from_micros(42)),
            unanswered: 3,
        };
        Report::new(&plan, measured, tally)
    }

    #[test]
    fn the_json_has_every_key_in_one_line() {
        let mut report = report(&[10, 10, 10, 20]);
        report.tally.fail(Fault::EarlyEof);
        assert_eq!(
            report.json(),
            "{\"mode\":\"closed\",\"connections\":2,\"size\":100,\"depth\":4,\
             \"offered_per_s\":null,\"seconds\":2,\"completed\":4,\"bytes\":400,\
             \"errors\":{\"refused\":0,\"reset\":0,\"early_eof\":1,\"timeout\":0,\"no_port\":0,\
             \"no_descriptor\":0,\"other\":0},\"corrupted\":0,\"rate_per_s\":2,\"mb_per_s\":0,\
             \"latency_us\":{\"p50\":10.007,\"p90\":20.015,\"p99\":20.015,\"p999\":20.015,\
             \"max\":20.015,\"mean\":12.505},\"cpu_s\":1.5,\"unanswered\":3,\
             \"full_handshakes\":0,\"resumed_handshakes\":0,\
             \"server_cpu_us_per_message\":10.5}"
        );
        assert!(!report.is_clean());
    }

    #[test]
    fn what_is_not_known_is_null() {
        let json = report(&[]).json();
        assert!(json.contains("\"p50\":null") && json.contains("\"rate_per_s\":0,"), "{json}");
        assert!(json.contains("\"server_cpu_us_per_message\":null"), "{json}");
        assert_eq!(number(Some(f64::INFINITY)), "null");
        assert_eq!(number(Some(1_234_500.0)), "1234500");
    }
}
