//! Many people at once, each in a browser of their own: at one instance, then at two, with the
//! sessions that they had.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::guest::Guest;
use super::instance::Instances;
use crate::bench::stats::{summary, thousandths};

/// Somebody reads a page for so long before the next one.
const READING: Duration = Duration::from_secs(2);
/// What they look at, in turns.
const PAGES: [&str; 2] = ["/sites", "/me"];

/// What they met.
#[derive(Default)]
struct Met {
    took_ms: Vec<f64>,
    by_instance: Vec<usize>,
    troubles: Vec<String>,
}

/// So many people come in; then a second instance is started beside them.
pub fn run(instances: &mut Instances, owner: &Guest, count: usize, seconds: u64) -> Result<Value> {
    println!("{count} people log in");
    let mut people = Vec::new();
    for number in 0..count {
        let link = owner.invites(&instances.api(1)?)?;
        let name = format!("person-{number}");
        people.push(Guest::come_in(instances.address(), &link, &name)?);
    }
    let one = phase(&people, &instances.addresses(), seconds)?;
    instances.join()?;
    let two = phase(&people, &instances.addresses(), seconds)?;
    Ok(json!([one, two]))
}

/// They click for so long.
fn phase(people: &[Guest], addresses: &[SocketAddr], seconds: u64) -> Result<Value> {
    let (stop, met) = (AtomicBool::new(false), Mutex::new(Met::default()));
    thread::scope(|scope| {
        for (at, person) in people.iter().enumerate() {
            let (stop, met) = (&stop, &met);
            scope.spawn(move || clicks(person, at, addresses, stop, met));
        }
        thread::sleep(Duration::from_secs(seconds));
        stop.store(true, Ordering::SeqCst);
    });
    let met = met.into_inner().unwrap_or_default();
    ensure!(
        met.troubles.is_empty(),
        "{} clicks failed, such as: {}",
        met.troubles.len(),
        met.troubles[0]
    );
    let mut sorted = met.took_ms.clone();
    sorted.sort_by(f64::total_cmp);
    let p99 = sorted.get((sorted.len() * 99).div_ceil(100).max(1) - 1);
    let sum = summary(&sorted);
    let (p50, p99) = (sum.map_or(0.0, |it| it.p50), p99.copied().unwrap_or(0.0));
    println!(
        "  {} instances: {} clicks, p50 {p50:.1} ms, p99 {p99:.1} ms, by instance {:?}",
        addresses.len(),
        sorted.len(),
        met.by_instance
    );
    Ok(json!({
        "instances": addresses.len(), "people": people.len(), "clicks": sorted.len(),
        "p50_ms": thousandths(p50), "p99_ms": thousandths(p99),
        "by_instance": met.by_instance,
    }))
}

/// One person: any instance answers any click, as behind an edge.
fn clicks(
    person: &Guest,
    at: usize,
    addresses: &[SocketAddr],
    stop: &AtomicBool,
    met: &Mutex<Met>,
) {
    // Not all at the same moment.
    thread::sleep(READING.mul_f64(at as f64 / 200.0 % 1.0));
    for click in at.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let instance = click % addresses.len();
        let begun = Instant::now();
        let outcome = person.sees_at(addresses[instance], PAGES[click % PAGES.len()]);
        let took_ms = begun.elapsed().as_secs_f64() * 1e3;
        if let Ok(mut met) = met.lock() {
            met.by_instance.resize(addresses.len(), 0);
            match outcome {
                Ok(()) => {
                    met.took_ms.push(took_ms);
                    met.by_instance[instance] += 1;
                }
                Err(error) => met.troubles.push(format!("{error:#}")),
            }
        }
        thread::sleep(READING.saturating_sub(begun.elapsed()));
    }
}
