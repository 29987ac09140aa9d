//! Who is asking.

use std::ffi::CString;

use nix::unistd::{Gid, Group, Uid, User, geteuid, getgrouplist};
use tokio::net::UnixStream;

use crate::config::Role;

/// Who is asking, and what they may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Name of the API client, or of the local user.
    pub name: String,
    /// Their role.
    pub role: Role,
    /// Whether they came by the unix socket.
    pub local: bool,
}

/// Which local users may use the unix socket: root, the daemon's own user, and members of one
/// group. They are operators: whoever runs the box can do no less.
#[derive(Debug, Clone)]
pub struct LocalRule {
    group: Option<Gid>,
}

impl LocalRule {
    /// `group` is a name or a number.
    pub fn new(group: Option<&str>) -> Result<Self, String> {
        let Some(text) = group else { return Ok(Self { group: None }) };
        if let Ok(number) = text.parse() {
            return Ok(Self { group: Some(Gid::from_raw(number)) });
        }
        match Group::from_name(text) {
            Ok(Some(group)) => Ok(Self { group: Some(group.gid) }),
            Ok(None) => Err(format!(
                "`daemon.group` is `{text}`, and there is no such group; make it with groupadd"
            )),
            Err(error) => Err(format!("group `{text}` can't be looked up: {error}")),
        }
    }

    pub(super) fn group(&self) -> Option<u32> {
        self.group.map(Gid::as_raw)
    }

    /// Who is at the other end, by the kernel's word (`SO_PEERCRED`).
    pub(super) fn judge(&self, stream: &UnixStream) -> Result<Caller, String> {
        let peer = stream.peer_cred().map_err(|error| error.to_string())?;
        self.judge_ids(Uid::from_raw(peer.uid()), Gid::from_raw(peer.gid()))
    }

    fn judge_ids(&self, uid: Uid, gid: Gid) -> Result<Caller, String> {
        let user = User::from_uid(uid).ok().flatten();
        let name = user.as_ref().map_or_else(|| format!("uid {uid}"), |user| user.name.clone());
        let member = self.group.is_some_and(|group| {
            gid == group || user.as_ref().is_some_and(|user| is_member(user, group))
        });
        if uid.is_root() || uid == geteuid() || member {
            return Ok(Caller { name, role: Role::Operator, local: true });
        }
        let group = self.group.map_or_else(|| "no group".to_owned(), |g| format!("gid {g}"));
        Err(format!("{name} is neither root, nor the daemon's user, nor a member of {group}"))
    }
}

/// Supplementary groups are looked up, as `SO_PEERCRED` carries the primary one alone.
fn is_member(user: &User, group: Gid) -> bool {
    CString::new(user.name.as_str())
        .ok()
        .and_then(|name| getgrouplist(&name, user.gid).ok())
        .is_some_and(|groups| groups.contains(&group))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_the_own_user_and_the_group_alone() {
        let rule = LocalRule::new(Some("64999")).expect("a number");
        let judge = |uid, gid| rule.judge_ids(Uid::from_raw(uid), Gid::from_raw(gid));
        assert_eq!(judge(0, 0).expect("root").role, Role::Operator);
        assert!(judge(geteuid().as_raw(), 1).is_ok());
        assert!(judge(64_998, 64_999).is_ok());
        let refused = judge(64_998, 64_998).expect_err("a stranger");
        assert!(refused.contains("uid 64998 is neither root"), "{refused}");
        assert!(LocalRule::new(Some("no such group")).is_err());
        let nobody = LocalRule::new(None).expect("no group");
        assert!(nobody.judge_ids(Uid::from_raw(64_998), Gid::from_raw(0)).is_err());
    }
}
