use std::fmt::Write as _;

use super::*;
use crate::text::arbitrary;

#[test]
fn the_table_has_a_row_for_each_kind_at_its_place() {
    for (at, row) in TABLE.iter().enumerate() {
        assert_eq!(row.kind as usize, at);
        assert_eq!(row.kind.as_str().parse(), Ok(row.kind));
        assert!(!row.approves.contains(&Role::Operator), "{}", row.kind);
        assert!(!row.approves.contains(&Role::Auditor), "{}", row.kind);
        assert!(!row.approves.contains(&Role::Recovery), "{}", row.kind);
        assert!(!row.proposes.contains(&Role::Auditor), "{}", row.kind);
        assert!(!row.proposes.contains(&Role::Recovery), "{}", row.kind);
        assert!(row.approves.contains(&Role::KeyOfficer) || !row.kind.is_about_keys());
    }
    assert_eq!(MotionKind::NewOrigin as usize + 1, TABLE.len());
    assert!(arbitrary::motions().iter().map(Motion::kind).eq(MotionKind::all()));
}

/// Who may do what, as the whole of it can be seen at once. A change of the table is a change of this
/// snapshot.
#[test]
fn roles_and_operations_as_people_read_them() {
    let mut text = format!("{:18}", "operation");
    for role in Role::ALL {
        let _ = write!(text, "  {:18}", role.as_str());
    }
    for row in &TABLE {
        text.truncate(text.trim_end().len());
        let _ = write!(text, "\n{:18}", row.kind.as_str());
        for role in Role::ALL {
            let recovers = role == Role::Recovery && row.recovery;
            let may = |roles: &[Role]| recovers || roles.contains(&role);
            let cell = match (may(row.proposes), may(row.approves)) {
                (true, true) => "proposes, approves",
                (true, false) => "proposes",
                (false, true) => "approves",
                (false, false) => "-",
            };
            let _ = write!(text, "  {cell:18}");
        }
    }
    insta::assert_snapshot!("roles_and_operations", text.trim_end());
}

#[test]
fn kinds_have_one_spelling() {
    for kind in MotionKind::all() {
        assert_eq!(kind.to_string(), kind.as_str());
        assert_eq!(serde_json::to_value(kind).expect("JSON"), kind.as_str());
        assert!(kind.as_str().to_uppercase().parse::<MotionKind>().is_err());
    }
    for text in ["", "found", "freeze", "approve", "generate-key ", "generate_key"] {
        assert!(text.parse::<MotionKind>().is_err(), "{text:?}");
    }
}
