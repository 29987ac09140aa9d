use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::name::tests::{any_name, wire};

/// What a version should hold: by sort key, the owner; then by type, TTL and RDATA.
type Model = BTreeMap<Vec<u8>, (Vec<u8>, BTreeMap<u16, (u32, Vec<Vec<u8>>)>)>;

fn any_model(owners: std::ops::Range<usize>) -> impl Strategy<Value = Model> {
    let rdatas = prop::collection::btree_set(prop::collection::vec(any::<u8>(), 0..5), 1..3);
    let rrset = (any::<u32>(), rdatas.prop_map(|set| set.into_iter().collect()));
    let rrsets = prop::collection::btree_map(1..5u16, rrset, 1..3);
    prop::collection::vec((any_name(), rrsets), owners).prop_map(|entries| {
        entries
            .into_iter()
            .map(|(owner, rrsets)| (name::sort_key(&owner), (owner, rrsets)))
            .collect()
    })
}

fn build(model: &Model) -> Packed {
    let mut builder = Builder::new();
    for (owner, rrsets) in model.values() {
        builder.owner(owner).expect("in order");
        for (rtype, (ttl_s, rdatas)) in rrsets {
            builder
                .rrset(
                    owner,
                    Rtype(*rtype),
                    *ttl_s,
                    rdatas.iter().map(Vec::as_slice),
                    [&b"sig"[..]],
                )
                .expect("in order");
        }
    }
    builder.finish().expect("small")
}

fn read(packed: &Packed) -> Model {
    let rrset = |rrset: Rrset<'_>| {
        (rrset.rtype().0, (rrset.ttl_s(), rrset.rdatas().map(<[u8]>::to_vec).collect()))
    };
    packed
        .iter()
        .map(|node| {
            let rrsets = node.rrsets().map(rrset).collect();
            (node.key().to_vec(), (node.owner().to_vec(), rrsets))
        })
        .collect()
}

fn numbered(count: usize) -> Packed {
    let mut builder = Builder::new();
    for i in 0..count {
        let owner = wire(&format!("n{i:06}.example."));
        builder.owner(&owner).expect("in order");
        builder.rrset(&owner, Rtype::A, 60, [&[1, 2, 3, 4][..]], []).expect("in order");
    }
    builder.finish().expect("small")
}

#[test]
fn an_edit_copies_the_touched_page_alone() {
    let base = numbered(1_000);
    let mut edit = base.edit();
    edit.put(&wire("n000250.example."), Rtype::A, 60, vec![vec![9; 4]], vec![]);
    let next = edit.finish().expect("edited");
    let shared = base.pages().iter().zip(next.pages()).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
    assert_eq!((base.pages().len(), next.pages().len(), shared), (10, 10, 9));
    assert_eq!(base, numbered(1_000), "the base is as it was");
}

#[test]
fn pages_split_evenly_as_they_grow() {
    let mut packed = numbered(100);
    for i in 0..200 {
        let mut edit = packed.edit();
        edit.put(&wire(&format!("z{i:03}.example.")), Rtype::A, 60, vec![vec![1; 4]], vec![]);
        packed = edit.finish().expect("edited");
    }
    assert_eq!(packed.counts().owners, 300);
    assert!(packed.pages().len() <= 4, "{}", packed.pages().len());
}

#[test]
fn the_owner_keeps_its_case_per_rrset() {
    let mut builder = Builder::new();
    builder.owner(&wire("a.Example.")).expect("first");
    builder.rrset(&wire("A.example."), Rtype::A, 1, [&[0; 4][..]], []).expect("same name");
    builder.rrset(&wire("a.Example."), Rtype::MX, 1, [&[0; 4][..]], []).expect("same name");
    let packed = builder.finish().expect("small");
    let node = packed.node(&wire("a.EXAMPLE.")).expect("any case");
    let owners: Vec<String> =
        node.rrsets().map(|rrset| name::Shown(rrset.owner()).to_string()).collect();
    assert_eq!(owners, ["A.example.", "a.Example."]);
}

#[test]
fn disorder_is_refused() {
    let mut builder = Builder::new();
    builder.owner(&wire("b.example.")).expect("first");
    builder.rrset(&wire("b.example."), Rtype::MX, 1, [&[0; 4][..]], []).expect("first");
    let rrset = builder.rrset(&wire("b.example."), Rtype::A, 1, [&[0; 4][..]], []);
    assert!(matches!(rrset, Err(PackedError::OutOfOrder(_))));
    assert!(matches!(builder.owner(&wire("B.example.")), Err(PackedError::OutOfOrder(_))));
    assert!(matches!(builder.owner(&wire("a.example.")), Err(PackedError::OutOfOrder(_))));
}

proptest! {
    #[test]
    fn what_was_built_is_read(model in any_model(0..300)) {
        let packed = build(&model);
        prop_assert_eq!(read(&packed), model.clone());
        let backwards: Vec<_> = packed.iter().rev().map(|node| node.key().to_vec()).collect();
        prop_assert!(backwards.iter().rev().eq(model.keys()));
        let records: usize = model.values().flat_map(|(_, r)| r.values()).map(|(_, r)| r.len()).sum();
        let counts = packed.counts();
        prop_assert_eq!((counts.owners, counts.records), (model.len(), records));
        prop_assert_eq!(counts.rrsigs, counts.rrsets);
    }

    #[test]
    fn lookups_agree_with_a_map(model in any_model(0..300), owner in any_name()) {
        let packed = build(&model);
        let key = name::sort_key(&owner);
        let keys = |iter: Iter<'_>| iter.map(|node| node.key().to_vec()).collect::<Vec<_>>();
        prop_assert_eq!(packed.node(&owner).is_some(), model.contains_key(&key));
        prop_assert!(keys(packed.at_or_after(&key)).iter().eq(model.range(key.clone()..).map(|e| e.0)));
        prop_assert!(keys(packed.before(&key)).iter().eq(model.range(..key.clone()).map(|e| e.0)));
        let below: Vec<_> = packed.below(&owner).map(|node| node.key().to_vec()).collect();
        let expect = model.range(key.clone()..).map(|e| e.0);
        prop_assert!(below.iter().eq(expect.filter(|k| k.starts_with(&key) && **k != key)));
    }

    #[test]
    fn edits_agree_with_a_map(base in any_model(0..300), changes in any_model(0..40), removed in prop::collection::vec(any::<prop::sample::Index>(), 0..40)) {
        let packed = build(&base);
        let mut model = base.clone();
        let mut edit = packed.edit();
        for index in &removed {
            let Some((key, (owner, rrsets))) = model.iter().nth(index.index(model.len().max(1))) else { break };
            let (key, owner, rtype) = (key.clone(), owner.clone(), *rrsets.keys().next().expect("one"));
            edit.remove(&owner, Rtype(rtype));
            let entry = model.get_mut(&key).expect("found");
            entry.1.remove(&rtype);
            if entry.1.is_empty() {
                model.remove(&key);
            }
        }
        for (key, (owner, rrsets)) in &changes {
            for (rtype, (ttl_s, rdatas)) in rrsets {
                edit.put(owner, Rtype(*rtype), *ttl_s, rdatas.clone(), vec![b"sig".to_vec()]);
            }
            model.entry(key.clone()).or_insert_with(|| (owner.clone(), BTreeMap::new())).1.extend(rrsets.clone());
        }
        let next = edit.finish().expect("edited");
        let spelled_alike = |model: &Model| model.iter().map(|(key, (_, rrsets))| (key.clone(), rrsets.clone())).collect::<Vec<_>>();
        prop_assert_eq!(spelled_alike(&read(&next)), spelled_alike(&model));
        prop_assert_eq!(read(&packed), base);
        let pages = next.pages().iter().map(|page| Page::from_bytes(page.as_bytes().to_vec()).map(Arc::new));
        let reread = Packed::from_pages(pages.collect::<Result<_, _>>().expect("own pages")).expect("in order");
        prop_assert_eq!(reread.digest(), next.digest());
        prop_assert_eq!(reread.counts(), next.counts());
    }

    #[test]
    fn damaged_pages_are_refused_or_read(model in any_model(1..20), at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let packed = build(&model);
        let mut bytes = packed.pages()[0].as_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(page) = Page::from_bytes(bytes) {
            read(&Packed::from_pages(vec![Arc::new(page)]).expect("one page"));
        }
    }
}
