//! The plan of a run in words, for whoever reads about a seed.

use slipring_core::{Limits, Listen, Rate, Timeout, Timeouts};

use super::plan::{Draw, Service};
use crate::trace::duration;

/// What a seed came to, a line each.
pub(super) fn describe(draw: &Draw) -> Vec<String> {
    let plan = &draw.plan;
    let service = match draw.service {
        Service::Echo => "an echo",
        Service::Relay => "the relay",
        Service::Busy => "a handler that does anything",
        Service::Tasks => "tasks that do anything",
        Service::Relayed => "tasks that relay",
    };
    let mut lines = vec![
        format!(
            "service   {service} on {}, {} each",
            count(plan.reactors, "reactor"),
            count(plan.listen.len(), "listener"),
        ),
        format!(
            "peers     {} within {}, streams of up to {} bytes; {} of {} served",
            count(draw.clients as usize, "client"),
            duration(draw.arrive_within_us),
            draw.total_max,
            draw.served.len(),
            count(draw.upstreams.len(), "upstream"),
        ),
        format!("limits    {}", limits(&plan.limits)),
        format!("listeners {}", listeners(&plan.listen_as, plan.accept_rate)),
        format!("timeouts  {}", timeouts(&plan.timeouts)),
        format!(
            "rings     submissions={} completions={} receive_cap={} zero_copy={} buffers_from={} poll={:?} \
             first_generation={}",
            plan.ring.submissions,
            plan.ring.completions,
            plan.ring.abilities.receive_cap,
            plan.ring.abilities.zero_copy,
            plan.ring.buffers_from,
            plan.poll,
            plan.first_generation,
        ),
        format!("course    {}", course(draw)),
    ];
    let knobs: Vec<String> =
        plan.knobs.settings().map(|(name, value)| format!("{name}={value}")).collect();
    let knobs = if knobs.is_empty() { "all at rest".to_owned() } else { knobs.join(" ") };
    lines.push(format!("knobs     {knobs}"));
    lines
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn course(draw: &Draw) -> String {
    let mut parts = Vec::new();
    if draw.descriptors_max < usize::MAX {
        parts.push(format!("{} descriptors at most", draw.descriptors_max));
    }
    if let Some(events) = draw.ring_fails_at {
        parts.push(format!("the ring of reactor 0 fails after {events} events"));
    }
    if let Some(events) = draw.drains_at {
        parts.push(format!("a drain among the faults after {events} events"));
    }
    if draw.phases && draw.service == Service::Busy {
        parts.push("handlers set phases".to_owned());
    }
    let drain = duration(u64::from(draw.plan.drain_ms) * 1000);
    if draw.plan.not_ready_ms > 0 {
        let not_ready = duration(u64::from(draw.plan.not_ready_ms) * 1000);
        parts.push(format!("a drain lets clients in for {not_ready}"));
    }
    parts.push(match draw.aborts {
        true => format!("the drain has {drain} and is an abort"),
        false => format!("the drain has {drain}"),
    });
    parts.join(", ")
}

fn limits(limits: &Limits) -> String {
    let zero_copy = limits.zero_copy_min_bytes;
    let parts = [
        ("accepted", u64::from(limits.accepted_max)),
        ("dialed", u64::from(limits.dialed_max)),
        ("backlog", u64::from(limits.backlog)),
        ("buffers", u64::from(limits.buffers)),
        ("buffer_bytes", u64::from(limits.buffer_bytes)),
        ("owned_bytes", limits.owned_bytes_max),
        ("outbox_high", u64::from(limits.outbox_high_bytes)),
        ("outbox_low", u64::from(limits.outbox_low_bytes)),
        ("outbox_pieces", u64::from(limits.outbox_pieces_high)),
        ("outbox_bytes", u64::from(limits.outbox_bytes_max)),
        ("turn_bytes", u64::from(limits.turn_bytes_max)),
        ("turn_receives", u64::from(limits.turn_receives_max)),
    ];
    let parts = parts.map(|(name, value)| format!("{name}={value}")).join(" ");
    let from = zero_copy.map_or_else(|| "never".to_owned(), |bytes| bytes.to_string());
    format!("{parts} zero_copy_from={from}")
}

fn listeners(listen_as: &[Listen], of_process: Option<Rate>) -> String {
    let rate = |rate: Option<Rate>| rate.map_or_else(String::new, |rate| format!(" rate={rate}"));
    let words = |how: &Listen| {
        let cap = how.max_connections.map_or("no cap".to_owned(), |max| format!("accepted={max}"));
        format!("{cap} on_full={:?}{}", how.on_full.unwrap_or_default(), rate(how.accept_rate))
    };
    let each = listen_as.iter().map(words).collect::<Vec<_>>().join(", ");
    format!(
        "{each}; of the process:{}",
        of_process.map_or(" no rate".to_owned(), |of| rate(Some(of)))
    )
}

fn timeouts(timeouts: &Timeouts) -> String {
    let parts = [
        ("idle", timeouts.idle),
        ("write_stall", timeouts.write_stall),
        ("half_closed", timeouts.half_closed),
        ("dial", timeouts.dial),
        ("linger", timeouts.linger),
        ("first_byte", timeouts.first_byte),
    ];
    let parts = parts.map(|(name, timeout)| match timeout {
        Timeout::Never => format!("{name}=never"),
        Timeout::After(time) => format!("{name}={}", duration(time.as_micros() as u64)),
    });
    parts.join(", ")
}
