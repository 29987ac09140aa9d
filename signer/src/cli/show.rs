//! Tables for people.

use std::io::{Result, Write};

use comfy_table::{ContentArrangement, Table, presets};

use crate::api::model::{
    AlarmReport, Health, HsmStatus, KeptReport, KeyList, VersionList, ZoneDetail, ZoneList,
    ZoneSummary,
};
use crate::clock::Civil;

type Out<'a> = &'a mut (dyn Write + Send);

pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_HORIZONTAL_ONLY)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header);
    table
}

fn time(seconds: Option<u64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), |s| Civil::of(s).to_string())
}

fn number<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn state(zone: &ZoneSummary) -> String {
    let up = if zone.serial.is_some() { "up" } else { "not up" };
    let frozen = if zone.frozen.is_some() { ", frozen" } else { "" };
    let doing = match zone.doing.as_str() {
        "idle" => String::new(),
        doing => format!(", {doing}"),
    };
    format!("{up}{frozen}{doing}")
}

fn alarms(zone: &str, alarms: &[AlarmReport], out: Out<'_>) -> Result<()> {
    for alarm in alarms {
        writeln!(out, "\n{zone} {} since {}", alarm.kind, Civil::of(alarm.since_s))?;
        writeln!(out, "  {}", alarm.reason.replace('\n', "\n  "))?;
        if let Some(at_s) = alarm.retry_at_s {
            writeln!(out, "  tried again at {}", Civil::of(at_s))?;
        }
        writeln!(out, "  next step: {}", alarm.next_step)?;
    }
    Ok(())
}

pub(super) fn zones(list: &ZoneList, out: Out<'_>) -> Result<()> {
    let mut rows = table(&["zone", "state", "serial", "published", "signatures expire", "alarms"]);
    for zone in &list.zones {
        rows.add_row([
            zone.zone.clone(),
            state(zone),
            number(zone.serial),
            time(zone.published_at_s),
            time(zone.expires_at_s),
            match zone.alarms.as_slice() {
                [] => "none".to_owned(),
                [first] => first.kind.clone(),
                [first, rest @ ..] => format!("{} and {} more", first.kind, rest.len()),
            },
        ]);
    }
    writeln!(out, "{rows}")?;
    if let Some(error) = &list.config_error {
        writeln!(out, "\nthe last reload of the configuration was refused:\n{error}")?;
    }
    for zone in &list.zones {
        alarms(&zone.zone, &zone.alarms, out)?;
    }
    Ok(())
}

pub(super) fn zone(detail: &ZoneDetail, out: Out<'_>) -> Result<()> {
    let zone = &detail.summary;
    let mut rows = table(&["zone", &zone.zone]);
    rows.add_row(["state", &state(zone)]);
    rows.add_row(["serial", &number(zone.serial)]);
    rows.add_row(["primary's serial", &number(zone.incoming_serial)]);
    rows.add_row(["published", &time(zone.published_at_s)]);
    rows.add_row(["records", &number(detail.records)]);
    rows.add_row(["signatures", &number(detail.signatures)]);
    rows.add_row(["signed again", &time(zone.refresh_at_s)]);
    rows.add_row(["signatures expire", &time(zone.expires_at_s)]);
    rows.add_row(["primary asked next", &time(Some(zone.next_check_at_s))]);
    rows.add_row(["policy", detail.policy.as_deref().unwrap_or("-")]);
    rows.add_row(["primaries", &detail.primaries.join(", ")]);
    rows.add_row(["secondaries", &detail.secondaries.join(", ")]);
    if let Some(frozen) = &zone.frozen {
        rows.add_row(["frozen", &format!("by {} since {}", frozen.by, Civil::of(frozen.since_s))]);
    }
    if !detail.remarks.is_empty() {
        rows.add_row(["remarks", &detail.remarks.join("\n")]);
    }
    writeln!(out, "{rows}")?;
    kept(zone.held.as_ref(), zone.waiting.as_ref(), out)?;
    alarms(&zone.zone, &zone.alarms, out)
}

/// What was set aside, and why.
fn kept(held: Option<&KeptReport>, waiting: Option<&KeptReport>, out: Out<'_>) -> Result<()> {
    for (what, kept) in [("held", held), ("waiting", waiting)] {
        let Some(kept) = kept else { continue };
        let KeptReport { serial, since_s, source, records, digest, reasons, released_by } = kept;
        let what = match released_by {
            Some(by) => format!("released by {by}, not up yet"),
            None => what.to_owned(),
        };
        let since = Civil::of(*since_s);
        writeln!(
            out,
            "\n{what}: serial {serial}, digest {digest}, {records} records, {source}, since {since}"
        )?;
        for reason in reasons {
            writeln!(out, "  {}", reason.replace('\n', "\n  "))?;
        }
    }
    Ok(())
}

pub(super) fn versions(list: &VersionList, out: Out<'_>) -> Result<()> {
    let mut rows =
        table(&["version", "published", "from serial", "source", "exact", "released by"]);
    for version in &list.versions {
        rows.add_row([
            format!("{}{}", version.serial, if version.up { " (up)" } else { "" }),
            time(Some(version.published_at_s)),
            version.incoming_serial.to_string(),
            version.source.clone().unwrap_or_else(|| "-".to_owned()),
            if version.exact { "yes" } else { "no" }.to_owned(),
            version.released_by.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    writeln!(out, "{rows}")?;
    kept(list.held.as_ref(), list.waiting.as_ref(), out)
}

pub(super) fn keys(list: &KeyList, out: Out<'_>) -> Result<()> {
    let mut rows = table(&["zone", "role", "algorithm", "tag", "key id", "proven by", "state"]);
    for key in &list.keys {
        rows.add_row([
            key.zone.clone(),
            key.role.clone(),
            format!("{} ({})", key.algorithm_name, key.algorithm),
            key.tag.to_string(),
            key.key_id.clone(),
            key.proven_by.join(", "),
            key.unusable.clone().unwrap_or_else(|| "usable".to_owned()),
        ]);
    }
    writeln!(out, "{rows}")
}

pub(super) fn hsm(status: &HsmStatus, out: Out<'_>) -> Result<()> {
    writeln!(out, "appliance {}, keeper {}", status.appliance, status.keeper_version)?;
    let mut rows = table(&[
        "token",
        "group",
        "state",
        "keys proven",
        "sessions",
        "queued",
        "signatures",
        "failures",
        "mean time",
    ]);
    for token in &status.tokens {
        rows.add_row([
            token.name.clone(),
            token.group.clone(),
            match &token.reason {
                Some(reason) => format!("{}: {reason}", token.state),
                None => token.state.clone(),
            },
            token.keys_proven.to_string(),
            token.sessions.to_string(),
            token.queued.to_string(),
            token.signatures.to_string(),
            token.failures.to_string(),
            token.latency_mean_us.map_or_else(|| "-".to_owned(), |us| format!("{us} µs")),
        ]);
    }
    writeln!(out, "{rows}")
}

pub(super) fn health(health: &Health, out: Out<'_>) -> Result<()> {
    let mut rows = table(&["countersignd", &health.version]);
    rows.add_row(["status", &health.status]);
    rows.add_row(["zones", &health.zones.to_string()]);
    rows.add_row(["zones up", &health.zones_up.to_string()]);
    rows.add_row(["zones with an alarm", &health.zones_alarmed.to_string()]);
    rows.add_row(["keeper", health.keeper_error.as_deref().unwrap_or("reachable")]);
    rows.add_row(["configuration", health.config_error.as_deref().unwrap_or("taken")]);
    for notice in &health.notices {
        let what = if notice.attention { "keeper: see to" } else { "keeper: note" };
        rows.add_row([what, &format!("{}: {}", notice.kind, notice.detail)]);
    }
    for alarm in &health.alarms {
        let AlarmReport { kind, reason, next_step, since_s, .. } = alarm;
        let since = time(Some(*since_s));
        rows.add_row(["see to", &format!("{kind} since {since}: {reason}; {next_step}")]);
    }
    if !health.restart_needed_for.is_empty() {
        rows.add_row(["restart needed for", &health.restart_needed_for.join(", ")]);
    }
    let ends = health.certificate_ends_at_s.and_then(|s| u64::try_from(s).ok());
    rows.add_row(["our certificate ends", &time(ends)]);
    writeln!(out, "{rows}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_says_what_is_wrong_and_what_to_do() {
        let list = ZoneList {
            config_error: Some("d.toml:3:1: unknown field".to_owned()),
            zones: vec![ZoneSummary {
                zone: "example.".to_owned(),
                serial: Some(7),
                incoming_serial: Some(6),
                published_at_s: Some(0),
                refresh_at_s: Some(0),
                expires_at_s: None,
                next_check_at_s: 0,
                doing: "signing".to_owned(),
                frozen: None,
                held: None,
                waiting: None,
                alarms: vec![AlarmReport {
                    kind: "signing-failed".to_owned(),
                    reason: "no token".to_owned(),
                    next_step: "see the keeper".to_owned(),
                    since_s: 0,
                    retry_at_s: Some(60),
                }],
            }],
        };
        let mut out = Vec::new();
        zones(&list, &mut out).expect("written");
        let text = String::from_utf8(out).expect("text");
        for part in [
            "up, signing",
            "1970-01-01T00:00:00Z",
            "unknown field",
            "example. signing-failed since",
            "tried again at 1970-01-01T00:01:00Z",
            "next step: see the keeper",
        ] {
            assert!(text.contains(part), "{part:?} is not in:\n{text}");
        }
    }
}
