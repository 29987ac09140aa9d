//! Zones, and the guards and hooks that they name.

use std::collections::{BTreeMap, BTreeSet};

use countersign_policy::ZoneName;
use toml::Spanned;

use super::peers::LocatedPeers;
use super::{check_absolute, check_plain};
use crate::config::{ApiClient, Guard, Hook, PUSH_LOCAL, Peer, Problem, Zone, v1};

/// Zones in one file: the largest portfolio, twice over.
const ZONES_MAX: usize = 200_000;
/// Primaries or secondaries of one zone.
const PEERS_PER_ZONE_MAX: usize = 64;
/// Guards and hooks in one file: a handful of ways to treat zones.
const GUARDS_MAX: usize = 256;
/// Names of one zone that must not go.
const CRITICAL_NAMES_MAX: usize = 1_000;
/// Hooks of one zone: each may take its whole time, one after the other.
const HOOKS_PER_ZONE_MAX: usize = 8;
/// How long a hook's answer takes unless the file says otherwise.
const HOOK_TIMEOUT_MS: u64 = 5_000;
/// The guard of zones that name none.
const GUARD_DEFAULT: &str = "default";
/// In place of a guard's name: nothing is held.
const GUARD_OFF: &str = "off";

pub(super) fn check_guards(
    raw: BTreeMap<String, Spanned<v1::Guard>>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, Guard> {
    let mut guards = BTreeMap::new();
    for (name, guard) in raw {
        let span = guard.span();
        check_plain("guard", &name, &span, problems);
        if name == GUARD_OFF || guards.len() == GUARDS_MAX {
            problems.push(Problem::at(
                span,
                format!(
                    "a guard can't be called `{GUARD_OFF}`, and there are at most {GUARDS_MAX}"
                ),
                "choose another name, or remove guards that no zone names",
            ));
            continue;
        }
        let (raw, default) = (guard.into_inner(), Guard::default());
        let percent = raw.shrink_percent_max.unwrap_or(default.shrink_percent_max);
        if percent > 100 {
            problems.push(Problem::at(
                span,
                format!("`shrink_percent_max` is {percent}; expected 0 to 100"),
                "100 never holds a zone for shrinking",
            ));
        }
        let guard = Guard {
            shrink_percent_max: percent,
            shrink_records_min: raw.shrink_records_min.unwrap_or(default.shrink_records_min),
            apex_ns: raw.apex_ns.unwrap_or(default.apex_ns),
        };
        guards.insert(name, guard);
    }
    guards
}

pub(super) fn check_hooks(
    raw: BTreeMap<String, Spanned<v1::Hook>>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, Hook> {
    let mut hooks = BTreeMap::new();
    for (name, hook) in raw {
        let span = hook.span();
        check_plain("hook", &name, &span, problems);
        let hook = hook.into_inner();
        check_absolute("socket", &hook.socket, problems);
        let timeout_ms = hook.timeout_ms.unwrap_or(HOOK_TIMEOUT_MS);
        if !(10..=600_000).contains(&timeout_ms) {
            problems.push(Problem::at(
                span,
                format!("hook `{name}`: `timeout_ms` is {timeout_ms}; expected 10 to 600000"),
                "leave it out for the default",
            ));
        }
        let (before, on_failure) = (hook.before, hook.on_failure);
        let socket = hook.socket.into_inner();
        hooks.insert(name, Hook { socket, before, timeout_ms, on_failure });
    }
    hooks
}

/// What a zone may name.
pub(super) struct Named<'a> {
    pub peers: &'a LocatedPeers,
    pub guards: &'a BTreeMap<String, Guard>,
    pub hooks: &'a BTreeMap<String, Hook>,
    pub clients: &'a BTreeMap<String, ApiClient>,
}

impl Named<'_> {
    fn guard(
        &self,
        zone: &ZoneName,
        name: Option<&Spanned<String>>,
        problems: &mut Vec<Problem>,
    ) -> Option<Guard> {
        let Some(name) = name else {
            return Some(self.guards.get(GUARD_DEFAULT).copied().unwrap_or_default());
        };
        let text = name.get_ref();
        if text == GUARD_OFF {
            return None;
        }
        let known = self.guards.get(text).copied();
        if known.is_none() {
            problems.push(Problem::at(
                name.span(),
                format!("zone {zone}: `guard` is `{text}`, which is not defined"),
                format!("add a table [guard.{text}], or write \"{GUARD_OFF}\" to hold nothing"),
            ));
        }
        known
    }

    fn critical(
        zone: &ZoneName,
        list: Vec<Spanned<String>>,
        problems: &mut Vec<Problem>,
    ) -> Vec<ZoneName> {
        if let Some(beyond) = list.get(CRITICAL_NAMES_MAX) {
            problems.push(Problem::at(
                beyond.span(),
                format!("zone {zone}: more than {CRITICAL_NAMES_MAX} names in `critical`"),
                "name those without which it is an outage",
            ));
        }
        let mut names = Vec::new();
        for text in list {
            match text.get_ref().parse::<ZoneName>() {
                Ok(name) if zone.contains_wire(name.as_wire()) => names.push(name),
                Ok(name) => problems.push(Problem::at(
                    text.span(),
                    format!("zone {zone}: `critical` has {name}, which lies outside of it"),
                    "write whole names, as in \"www.example.\"",
                )),
                Err(error) => problems.push(Problem::at(
                    text.span(),
                    format!("zone {zone}: `critical` has {:?}: {error}", text.get_ref()),
                    "write whole names, as in \"www.example.\"",
                )),
            }
        }
        names
    }

    fn list<T>(
        zone: &ZoneName,
        field: &str,
        list: Vec<Spanned<String>>,
        max: usize,
        known: &BTreeMap<String, T>,
        also: Option<&str>,
        problems: &mut Vec<Problem>,
    ) -> Vec<String> {
        let mut seen = BTreeSet::new();
        for name in &list {
            let text = name.get_ref();
            let (what, hint) = if seen.len() == max {
                (format!("more than {max}"), "leave some out".to_owned())
            } else if !known.contains_key(text) && also != Some(text.as_str()) {
                (format!("`{text}`, which is not defined"), format!("add a table for `{text}`"))
            } else if !seen.insert(text.clone()) {
                (format!("`{text}` twice"), "remove one".to_owned())
            } else {
                continue;
            };
            let problem = format!("zone {zone}: `{field}` names {what}");
            problems.push(Problem::at(name.span(), problem, hint));
        }
        list.into_iter().map(Spanned::into_inner).collect()
    }
}

pub(super) fn check_zones(
    raw: BTreeMap<Spanned<String>, Spanned<v1::Zone>>,
    named: &Named<'_>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<ZoneName, Zone> {
    let peers = named.peers;
    let mut zones = BTreeMap::new();
    for (key, zone) in raw {
        let zone = zone.into_inner();
        let name: ZoneName = match key.get_ref().parse() {
            Ok(name) => name,
            Err(error) => {
                problems.push(Problem::at(
                    key.span(),
                    format!("{:?} is not a zone's name: {error}", key.get_ref()),
                    "write it in quotes, as in [zone.\"example.\"]",
                ));
                continue;
            }
        };
        if zones.len() == ZONES_MAX {
            problems.push(Problem::at(
                key.span(),
                format!("more than {ZONES_MAX} zones"),
                "run a second signer",
            ));
            break;
        }
        if zone.primaries.is_empty() && zone.push_from.is_empty() {
            problems.push(Problem::at(
                key.span(),
                format!("zone {name} has neither `primaries` nor `push_from`"),
                "name at least one peer that has `transfer_from`, or an API client that may push",
            ));
        }
        let primaries = check_peer_list(
            &name,
            "primaries",
            zone.primaries,
            peers,
            |peer| peer.transfer_from.is_some(),
            "has no `transfer_from`, so the zone can't be fetched from it",
            "add transfer_from = \"ADDRESS:853\" to the peer",
            problems,
        );
        let secondaries = check_peer_list(
            &name,
            "secondaries",
            zone.secondaries,
            peers,
            |_| true,
            "",
            "",
            problems,
        );
        let (clients, local) = (named.clients, Some(PUSH_LOCAL));
        let max = PEERS_PER_ZONE_MAX;
        let push_from =
            Named::list(&name, "push_from", zone.push_from, max, clients, local, problems);
        let max = HOOKS_PER_ZONE_MAX;
        let hooks = Named::list(&name, "hooks", zone.hooks, max, named.hooks, None, problems);
        let checked = Zone {
            primaries,
            push_from,
            secondaries,
            incoming_dnssec: zone.incoming_dnssec,
            incoming_zonemd: zone.incoming_zonemd,
            zonemd: zone.zonemd,
            beyond_window: zone.beyond_window,
            guard: named.guard(&name, zone.guard.as_ref(), problems),
            critical: Named::critical(&name, zone.critical, problems),
            hooks,
        };
        if zones.insert(name.clone(), checked).is_some() {
            problems.push(Problem::at(
                key.span(),
                format!("zone {name} is defined twice, spelled differently"),
                "keep one of the two tables",
            ));
        }
    }
    zones
}

#[expect(clippy::too_many_arguments, reason = "one rule, in the words that its error needs")]
fn check_peer_list(
    zone: &ZoneName,
    field: &str,
    list: Vec<Spanned<String>>,
    peers: &LocatedPeers,
    fits: impl Fn(&Peer) -> bool,
    misfit: &str,
    misfit_hint: &str,
    problems: &mut Vec<Problem>,
) -> Vec<String> {
    let mut seen = BTreeSet::new();
    for name in &list {
        let peer = name.get_ref();
        let problem = match peers.get(peer) {
            _ if seen.len() == PEERS_PER_ZONE_MAX => Problem::at(
                name.span(),
                format!("zone {zone}: more than {PEERS_PER_ZONE_MAX} {field}"),
                "let some secondaries fetch from others",
            ),
            None => {
                let near = peers
                    .keys()
                    .map(|known| (strsim::jaro_winkler(peer, known), known))
                    .filter(|(likeness, _)| *likeness > 0.8)
                    .max_by(|a, b| a.0.total_cmp(&b.0));
                Problem::at(
                    name.span(),
                    format!("zone {zone}: `{field}` names the peer `{peer}`, which is not defined"),
                    near.map_or_else(
                        || format!("add a table [peer.{peer}]"),
                        |(_, known)| format!("did you mean `{known}`?"),
                    ),
                )
            }
            Some((_, known)) if !fits(known) => Problem::at(
                name.span(),
                format!("zone {zone}: `{field}` names the peer `{peer}`, which {misfit}"),
                misfit_hint,
            ),
            Some(_) if !seen.insert(peer.clone()) => Problem::at(
                name.span(),
                format!("zone {zone}: `{field}` names the peer `{peer}` twice"),
                "remove one",
            ),
            Some(_) => continue,
        };
        problems.push(problem);
    }
    list.into_iter().map(Spanned::into_inner).collect()
}
