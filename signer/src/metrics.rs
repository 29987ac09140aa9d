//! What Prometheus sees. Counters live here; everything that is a state (zones, tokens, expiry)
//! is read when it is asked for, so that no series outlives what it is about.
//!
//! Cardinality is bounded: tokens by the founding, notices by their kinds, zones by [`ZONES_MAX`],
//! peers, which are labels of their certificates alone, by [`CERTIFICATES_MAX`].

use std::collections::BTreeMap;

use countersign_hsm::protocol::{KeeperHealth, LATENCY_BUCKETS_US, TokenHealth, TokenState};
use countersign_policy::ZoneName;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};
use prometheus::{Encoder as _, IntCounter, Registry, TextEncoder};

use crate::runner::alarm::AlarmKind;
use crate::runner::schedule::Up;
use crate::runner::status::Directory;
use crate::tls::{self, Ending};

/// Zones with series of their own. A portfolio of 200,000 zones would be as many series per
/// metric; beyond this the sums over all zones must do, and the API names the zones.
pub const ZONES_MAX: usize = 1_000;

/// Series of zone alarms, at most.
const ALARMS_MAX: usize = 1_000;

/// Certificates with series of their own, those that end soonest: beyond them the alarms count.
const CERTIFICATES_MAX: usize = 1_000;

/// The daemon's counters.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    versions_published: IntCounter,
    versions_resumed: IntCounter,
    signatures_made: IntCounter,
    signatures_refused: IntCounter,
    verification_failures: IntCounter,
    check_failures: IntCounter,
    config_reloads: IntCounter,
    config_refusals: IntCounter,
}

/// What is read for one scrape.
#[derive(Debug)]
pub struct Scrape<'a> {
    /// The zones' tasks.
    pub zones: &'a Directory,
    /// The keeper's answer, if it gave one.
    pub keeper: Option<&'a KeeperHealth>,
    /// Whether the last reload was refused.
    pub config_refused: bool,
    /// When our own TLS certificate ends.
    pub certificate_ends_at_s: Option<i64>,
    /// What else of TLS ends when, soonest first.
    pub endings: &'a [Ending],
    /// What needs attention about certificates.
    pub certificate_alarms: &'a [tls::Alarm],
    /// Further counters, by name and help text.
    pub counters: &'a [(String, &'static str, u64)],
    /// Seconds since 1970.
    pub now_s: u64,
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        Ok(Self {
            versions_published: counter(
                "countersign_versions_published_total",
                "Versions of zones that were verified, stored and put up.",
            )?,
            versions_resumed: counter(
                "countersign_versions_resumed_total",
                "Versions of zones that were put up from disk at start.",
            )?,
            signatures_made: counter(
                "countersign_signatures_made_total",
                "Signatures that the keeper made for this daemon.",
            )?,
            signatures_refused: counter(
                "countersign_signatures_refused_total",
                "Signatures that this daemon asked for and the keeper did not make.",
            )?,
            verification_failures: counter(
                "countersign_verification_failures_total",
                "Versions that did not verify and were not published, or not trusted any longer.",
            )?,
            check_failures: counter(
                "countersign_primary_check_failures_total",
                "Checks of a zone that no primary answered well.",
            )?,
            config_reloads: counter(
                "countersign_config_reloads_total",
                "Configurations that were taken, the one at start included.",
            )?,
            config_refusals: counter(
                "countersign_config_refusals_total",
                "Reloads whose configuration was refused.",
            )?,
            registry,
        })
    }

    /// A version went out.
    pub fn published(&self) {
        self.versions_published.inc();
    }

    /// A version came back from disk.
    pub fn resumed(&self) {
        self.versions_resumed.inc();
    }

    /// The keeper made signatures.
    pub fn signatures_made(&self, count: usize) {
        self.signatures_made.inc_by(count as u64);
    }

    /// The keeper did not make signatures.
    pub fn signatures_refused(&self, count: usize) {
        self.signatures_refused.inc_by(count as u64);
    }

    /// A version did not verify.
    pub fn verification_failed(&self) {
        self.verification_failures.inc();
    }

    /// No primary gave a zone.
    pub fn check_failed(&self) {
        self.check_failures.inc();
    }

    /// A configuration was taken, or refused.
    pub fn config_loaded(&self, taken: bool) {
        if taken { self.config_reloads.inc() } else { self.config_refusals.inc() }
    }

    /// The text that Prometheus reads.
    pub fn render(&self, scrape: &Scrape<'_>) -> Result<Vec<u8>, prometheus::Error> {
        let mut families = self.registry.gather();
        families.extend(scrape.counters.iter().map(|(name, help, value)| {
            family(name, help, MetricType::COUNTER, [(vec![], Value::Counter(*value))])
        }));
        families.extend(general(scrape));
        families.extend(certificates(scrape));
        families.extend(zones(scrape));
        families.extend(scrape.keeper.map(notices));
        families.extend(tokens(scrape.keeper.map(|keeper| &*keeper.tokens)));
        families.retain(|family| !family.get_metric().is_empty());
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text)?;
        Ok(text)
    }
}

#[derive(Clone, Copy)]
enum Value {
    Counter(u64),
    Gauge(f64),
}

type Labels = Vec<(&'static str, String)>;

fn metric(labels: Labels, value: Value) -> Metric {
    let mut metric = Metric::from_label(pairs(labels));
    match value {
        Value::Counter(value) => {
            let mut counter = Counter::default();
            counter.set_value(as_f64(value));
            metric.set_counter(counter);
        }
        Value::Gauge(value) => {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
    }
    metric
}

fn pairs(labels: Labels) -> Vec<LabelPair> {
    let pair = |(name, value): (&str, String)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value);
        pair
    };
    labels.into_iter().map(pair).collect()
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus' values are doubles; 2^53 is enough")]
fn as_f64(value: u64) -> f64 {
    value as f64
}

fn family(
    name: &str,
    help: &str,
    kind: MetricType,
    metrics: impl IntoIterator<Item = (Labels, Value)>,
) -> MetricFamily {
    let metrics = metrics.into_iter().map(|(labels, value)| metric(labels, value)).collect();
    family_of(name, help, kind, metrics)
}

fn family_of(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn gauge(name: &str, help: &str, metrics: impl IntoIterator<Item = (Labels, f64)>) -> MetricFamily {
    let metrics = metrics.into_iter().map(|(labels, value)| (labels, Value::Gauge(value)));
    family(name, help, MetricType::GAUGE, metrics)
}

fn truth(value: bool) -> f64 {
    if value { 1.0 } else { 0.0 }
}

fn general(scrape: &Scrape<'_>) -> Vec<MetricFamily> {
    let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
    let certificate = scrape.certificate_ends_at_s.and_then(|s| u64::try_from(s).ok());
    vec![
        gauge("countersign_build_info", "Always 1; the version is a label.", [(version, 1.0)]),
        gauge(
            "countersign_config_refused",
            "1 while the configuration file was refused at its last reload.",
            [(vec![], truth(scrape.config_refused))],
        ),
        gauge(
            "countersign_keeper_reachable",
            "1 if the keeper answered for this scrape.",
            [(vec![], truth(scrape.keeper.is_some()))],
        ),
        gauge(
            "countersign_certificate_expiry_timestamp_seconds",
            "When our own TLS certificate ends.",
            certificate.map(|s| (vec![], as_f64(s))),
        ),
    ]
}

fn certificates(scrape: &Scrape<'_>) -> Vec<MetricFamily> {
    let alarms = tls::AlarmKind::ALL.map(|kind| {
        let count = scrape.certificate_alarms.iter().filter(|alarm| alarm.kind == kind).count();
        (vec![("kind", kind.as_str().to_owned())], as_f64(count as u64))
    });
    // The same name may stand for two certificates of a chain, or be two CAs': the sooner counts.
    let mut shown = BTreeMap::new();
    for ending in scrape.endings.iter().take(CERTIFICATES_MAX) {
        let left_s = i128::from(ending.at_s) - i128::from(scrape.now_s);
        shown.entry((ending.what.as_str(), ending.name.as_str())).or_insert(left_s);
    }
    vec![
        gauge(
            "countersign_certificate_alarms",
            "Alarms about certificates and revocation lists, by their kind.",
            alarms,
        ),
        gauge(
            "countersign_certificate_expires_seconds",
            "Seconds until a certificate in use ends, or a revocation list is due anew; negative after that.",
            shown.into_iter().map(|((kind, name), left_s)| {
                (vec![("kind", kind.to_owned()), ("name", name.to_owned())], seconds(left_s))
            }),
        ),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "no certificate lasts for 2^53 seconds")]
fn seconds(count: i128) -> f64 {
    count as f64
}

fn zones(scrape: &Scrape<'_>) -> Vec<MetricFamily> {
    let zones = scrape.zones.zones();
    let mut ups: Vec<(&ZoneName, Up)> = Vec::new();
    let mut by_kind = AlarmKind::ALL.map(|kind| (kind, 0_u64));
    let mut alarms = Vec::new();
    let mut frozen = 0_u64;
    for (zone, handle) in zones.iter() {
        let status = handle.status.borrow();
        ups.extend(status.schedule.up().map(|up| (zone, *up)));
        frozen += u64::from(status.frozen.is_some());
        for alarm in status.schedule.alarms(scrape.now_s) {
            for (kind, count) in &mut by_kind {
                *count += u64::from(*kind == alarm.kind);
            }
            if alarms.len() < ALARMS_MAX {
                let kind = alarm.kind.as_str().to_owned();
                alarms.push((vec![("zone", zone.to_string()), ("kind", kind)], 1.0));
            }
        }
    }
    let label = |zone: &ZoneName| vec![("zone", zone.to_string())];
    let named = &ups[..ups.len().min(ZONES_MAX)];
    vec![
        gauge("countersign_zones", "Zones configured.", [(vec![], as_f64(zones.len() as u64))]),
        gauge(
            "countersign_zones_up",
            "Zones with a version up.",
            [(vec![], as_f64(ups.len() as u64))],
        ),
        gauge("countersign_zones_frozen", "Zones that are frozen.", [(vec![], as_f64(frozen))]),
        gauge(
            "countersign_zones_alarmed",
            "Zones with an alarm, by its kind.",
            by_kind.map(|(kind, n)| (vec![("kind", kind.as_str().to_owned())], as_f64(n))),
        ),
        gauge("countersign_zone_alarm", "1 for each alarm of a zone.", alarms),
        gauge(
            "countersign_oldest_signature_expiry_timestamp_seconds",
            "When the first signature of any zone that is up expires.",
            ups.iter().map(|(_, up)| up.expires_s).min().map(|s| (vec![], as_f64(s))),
        ),
        gauge(
            "countersign_zone_signature_expiry_timestamp_seconds",
            "When the first signature of the zone expires.",
            named.iter().map(|(zone, up)| (label(zone), as_f64(up.expires_s))),
        ),
        gauge(
            "countersign_zone_serial",
            "Serial of the version that is up.",
            named.iter().map(|(zone, up)| (label(zone), as_f64(up.serial.into()))),
        ),
    ]
}

fn notices(keeper: &KeeperHealth) -> MetricFamily {
    gauge(
        "countersign_keeper_notices",
        "What the keeper wants known, by its kind; all but `proposal` need attention.",
        crate::notices::count(&keeper.notices)
            .map(|(kind, n)| (vec![("kind", kind.as_str().to_owned())], as_f64(n))),
    )
}

fn tokens(tokens: Option<&[TokenHealth]>) -> Vec<MetricFamily> {
    let tokens = tokens.unwrap_or_default();
    let label =
        |token: &TokenHealth| vec![("token", token.name.clone()), ("group", token.group.clone())];
    let counter = |name: &str, help: &str, value: fn(&TokenHealth) -> u64| {
        let metrics = tokens.iter().map(|token| (label(token), Value::Counter(value(token))));
        family(name, help, MetricType::COUNTER, metrics)
    };
    vec![
        gauge(
            "countersign_hsm_usable",
            "1 if the token signs.",
            tokens.iter().map(|t| (label(t), truth(t.state == TokenState::Usable))),
        ),
        gauge(
            "countersign_hsm_keys_proven",
            "Keys that the token has proven since it was last opened.",
            tokens.iter().map(|t| (label(t), t.keys_proven.into())),
        ),
        gauge(
            "countersign_hsm_queue",
            "Requests that wait for the token.",
            tokens.iter().map(|t| (label(t), t.queued.into())),
        ),
        counter("countersign_hsm_signatures_total", "Signatures made by the token.", |t| {
            t.signatures
        }),
        counter("countersign_hsm_failures_total", "Calls that the token failed.", |t| t.failures),
        family_of(
            "countersign_hsm_sign_seconds",
            "Time from asking the token for a signature to having it.",
            MetricType::HISTOGRAM,
            tokens.iter().map(|token| latency(token, label(token))).collect(),
        ),
    ]
}

fn latency(token: &TokenHealth, labels: Labels) -> Metric {
    let mut cumulative = 0;
    let mut buckets = Vec::new();
    for (bound_us, count) in LATENCY_BUCKETS_US.iter().zip(&token.latency_counts) {
        cumulative += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(as_f64(*bound_us) / 1e6);
        bucket.set_cumulative_count(cumulative);
        buckets.push(bucket);
    }
    let mut histogram = Histogram::default();
    histogram.set_sample_count(token.latency_counts.iter().sum());
    histogram.set_sample_sum(as_f64(token.latency_sum_us) / 1e6);
    histogram.set_bucket(buckets);
    let mut metric = Metric::from_label(pairs(labels));
    metric.set_histogram(histogram);
    metric
}

#[cfg(test)]
mod tests {
    use countersign_hsm::protocol::{Notice, NoticeKind};

    use super::*;

    #[test]
    fn a_scrape_of_a_daemon_without_zones() {
        let metrics = Metrics::new().expect("metrics");
        metrics.published();
        metrics.signatures_made(7);
        let token = TokenHealth {
            name: "zsk-a".to_owned(),
            group: "zsk".to_owned(),
            label: "l".to_owned(),
            serial: "s".to_owned(),
            state: TokenState::Usable,
            sessions: 1,
            keys_proven: 2,
            queued: 0,
            signatures: 3,
            failures: 0,
            latency_counts: vec![1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1],
            latency_sum_us: 2_000_000,
        };
        let detail = "by carol".to_owned();
        let frozen = Notice { kind: NoticeKind::Frozen, detail };
        let peer = |at_s| Ending::example(tls::What::Seen(tls::Holder::Peer), "ns1", at_s);
        // The sooner of two that are called the same.
        let endings = [peer(-7), peer(9)];
        let alarms: Vec<_> = endings.iter().filter_map(|ending| ending.alarm(0)).collect();
        let text = metrics
            .render(&Scrape {
                zones: &Directory::default(),
                keeper: Some(&KeeperHealth { tokens: vec![token], notices: vec![frozen] }),
                config_refused: false,
                certificate_ends_at_s: Some(5),
                endings: &endings,
                certificate_alarms: &alarms,
                counters: &[("countersign_transfers_out_total".to_owned(), "Transfers out.", 4)],
                now_s: 0,
            })
            .expect("rendered");
        let text = String::from_utf8(text).expect("text");
        for line in [
            "countersign_versions_published_total 1",
            "countersign_signatures_made_total 7",
            "countersign_transfers_out_total 4",
            "countersign_zones 0",
            "countersign_zones_alarmed{kind=\"no-version\"} 0",
            "countersign_keeper_reachable 1",
            "countersign_keeper_notices{kind=\"frozen\"} 1",
            "countersign_keeper_notices{kind=\"proposal\"} 0",
            "countersign_certificate_expires_seconds{kind=\"peer\",name=\"ns1\"} -7",
            "countersign_certificate_alarms{kind=\"certificate-expired\"} 1",
            "countersign_certificate_alarms{kind=\"certificate-expiring-soon\"} 1",
            "countersign_certificate_alarms{kind=\"crl-expired\"} 0",
            "countersign_hsm_usable{token=\"zsk-a\",group=\"zsk\"} 1",
            "countersign_hsm_sign_seconds_bucket{token=\"zsk-a\",group=\"zsk\",le=\"0.00005\"} 1",
            "countersign_hsm_sign_seconds_bucket{token=\"zsk-a\",group=\"zsk\",le=\"+Inf\"} 3",
            "countersign_hsm_sign_seconds_sum{token=\"zsk-a\",group=\"zsk\"} 2",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in:\n{text}");
        }
        assert!(!text.contains("oldest_signature"), "no zone, no expiry:\n{text}");
    }
}
