//! Measurements: three resolutions, always bounded.

use undine_store::*;
use uuid::Uuid;

use crate::fixtures::*;
use crate::on_both;

on_both!(
    a_sample_is_seen_in_all_resolutions,
    a_long_life_is_kept_in_few_rows,
    batches_at_once_lose_no_sample,
    what_is_forgotten_is_gone,
);

const HOUR: i64 = 3_600_000;

fn sample(subject: Uuid, name: &str, at: i64, value: f64) -> Sample {
    Sample {
        kind: MetricSubject::Server,
        subject,
        name: name.to_owned(),
        at,
        value,
    }
}

async fn a_sample_is_seen_in_all_resolutions(store: Store) {
    let (subject, start) = (id::<kind::Server>().uuid(), T0 - T0 % HOUR);
    let samples: Vec<Sample> = (0..12)
        .flat_map(|n| {
            let at = start + n * 10_000;
            [
                sample(subject, "cpu", at, n as f64),
                sample(subject, "memory", at, 5.0),
            ]
        })
        .chain([sample(subject, "cpu", start, f64::NAN)])
        .collect();
    let kept = store.metrics().record(&samples).await.unwrap();
    assert_eq!(
        kept,
        Kept {
            written: 24,
            refused: 0
        }
    );
    let read = |resolution| {
        let store = store.clone();
        async move {
            let found = store
                .metrics()
                .read(subject, &["cpu"], start, start + HOUR, resolution)
                .await
                .unwrap();
            assert_eq!(found.len(), 1);
            found[0]
                .points
                .iter()
                .map(|p| (p.at - start, p.value))
                .collect::<Vec<_>>()
        }
    };
    assert_eq!(read(Resolution::Fine).await[3], (30_000, 3.0));
    assert_eq!(read(Resolution::Minute).await, [(0, 2.5), (60_000, 8.5)]);
    assert_eq!(read(Resolution::Hour).await, [(0, 5.5)]);
    let all = store
        .metrics()
        .read(subject, &[], start, start + 1, Resolution::Fine)
        .await
        .unwrap();
    assert_eq!(
        all.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(),
        ["cpu", "memory"]
    );
    assert_eq!(Resolution::reaching(start, start + HOUR), Resolution::Fine);
    assert_eq!(
        Resolution::reaching(start, start + 40 * HOUR),
        Resolution::Minute
    );
    assert_eq!(
        Resolution::reaching(start, start + 400 * HOUR),
        Resolution::Hour
    );
}

async fn a_long_life_is_kept_in_few_rows(store: Store) {
    let (subject, metrics) = (id::<kind::Server>().uuid(), store.metrics());
    // Two years, with a sample every five hours; then a last hour in full.
    let (mut now, end) = (T0, T0 + 2 * 365 * 24 * HOUR);
    while now < end {
        let batch: Vec<Sample> = (0..40)
            .map(|n| sample(subject, "cpu", now + n * 5 * HOUR, 1.0))
            .collect();
        metrics.record(&batch).await.unwrap();
        now += 200 * HOUR;
        metrics.trim(now).await.unwrap();
    }
    let last: Vec<Sample> = (0..360)
        .map(|n| sample(subject, "cpu", now + n * 10_000, 2.0))
        .collect();
    metrics.record(&last).await.unwrap();
    now += HOUR;
    metrics.trim(now).await.unwrap();
    for resolution in Resolution::ALL {
        let found = metrics
            .read(subject, &[], 0, now, resolution)
            .await
            .unwrap();
        let points = &found[0].points;
        // What is kept is at least its time, and one block more at most.
        let oldest = now - resolution.kept_ms() - 170 * resolution.step_ms() * 2;
        assert!(
            points.iter().all(|point| point.at > oldest),
            "{resolution:?}"
        );
        assert!(points.last().unwrap().at >= now - HOUR);
    }
    let fine = metrics
        .read(subject, &[], now - HOUR, now, Resolution::Fine)
        .await
        .unwrap();
    assert_eq!(fine[0].points.len(), 360);
    // Nothing for longer than a year: the series itself goes.
    metrics.trim(now + 400 * 24 * HOUR).await.unwrap();
    assert_eq!(
        metrics
            .read(subject, &[], 0, i64::MAX / 2, Resolution::Hour)
            .await
            .unwrap(),
        []
    );
}

async fn batches_at_once_lose_no_sample(store: Store) {
    let (subject, start) = (id::<kind::Server>().uuid(), T0 - T0 % HOUR);
    store
        .metrics()
        .record(&[sample(subject, "cpu", start, 1.0)])
        .await
        .unwrap();
    let tries = (1..9).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            let batch = [
                sample(subject, "cpu", start + n * 10_000, 1.0),
                sample(subject, "memory", start + n * 10_000, 1.0),
            ];
            // Two instances that make the same series at once may be in each other's way.
            loop {
                match store.metrics().record(&batch).await {
                    Err(StoreError::Conflict(_)) => {}
                    other => return other.unwrap(),
                }
            }
        })
    });
    for kept in futures_util::future::join_all(tries).await {
        assert_eq!(kept.unwrap().written, 2);
    }
    let found = store
        .metrics()
        .read(subject, &["cpu"], start, start + HOUR, Resolution::Fine)
        .await
        .unwrap();
    assert_eq!(found[0].points.len(), 9);
}

async fn what_is_forgotten_is_gone(store: Store) {
    let (a, b) = (id::<kind::Server>().uuid(), id::<kind::Server>().uuid());
    store
        .metrics()
        .record(&[sample(a, "cpu", T0, 1.0), sample(b, "cpu", T0, 1.0)])
        .await
        .unwrap();
    store.metrics().forget(a).await.unwrap();
    let read = async |subject| {
        store
            .metrics()
            .read(subject, &[], 0, T0 * 2, Resolution::Fine)
            .await
            .unwrap()
            .len()
    };
    assert_eq!((read(a).await, read(b).await), (0, 1));
}

use undine_model::id::kind;
